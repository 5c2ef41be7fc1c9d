//! Promise, Start, Create, Import: one at a time, each carried out to its end. These functions block.

use std::io;

use pg_quorum_quorum::segment::{
    Command, CreateRequest, Granted, PromiseRequest, SegmentMachine, StartProgress, StartRequest, Step,
};
use pg_quorum_quorum::{Monotonic, Refusal, Refused, RequestContext};
use pg_quorum_types::{Base, ClusterFacts};
use pg_quorum_wal::WalLayout;

use super::{Segment, effective_history};
use crate::abort::AbortOnPanic;

type Answer<T> = Result<T, Box<Refused>>;

impl Segment {
    /// # Errors
    /// The refusal to answer with.
    pub fn promise(&self, request: PromiseRequest) -> Answer<Granted> {
        let node = &self.settings.node;
        let (epoch, owner) = (request.context.epoch, request.owner.clone());
        let answer = self.carry_out(|machine, now| machine.promise(request, now))?;
        tracing::info!(%node, %epoch, "promised to {owner}");
        match answer {
            Some(Command::AnswerPromise(granted)) => Ok(*granted),
            other => unreachable!("a promise was answered with {other:?}"),
        }
    }

    /// # Errors
    /// The refusal to answer with.
    pub fn start(&self, request: StartRequest) -> Answer<StartProgress> {
        let node = &self.settings.node;
        let epoch = request.context.epoch;
        let answer = self.carry_out(|machine, now| machine.start(request, now))?;
        let Some(Command::AnswerStart(progress)) = answer else {
            unreachable!("a Start was answered with {answer:?}");
        };
        if progress.cut_bytes > 0 {
            tracing::info!(%node, %epoch, to = %progress.scl, bytes = progress.cut_bytes, "cut the log");
        }
        if !progress.started {
            self.catch_up_now.notify_one();
        }
        Ok(progress)
    }

    /// # Errors
    /// The refusal to answer with.
    pub fn create(&self, request: CreateRequest) -> Answer<()> {
        let volume = request.volume;
        self.carry_out(|machine, now| machine.create(request, now))?;
        tracing::info!(node = %self.settings.node, %volume, "member of a volume");
        Ok(())
    }

    /// Whether items are wanted: false if this very base is complete.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn begin_import(&self, context: &RequestContext, base: Base) -> Answer<bool> {
        let mut is_complete = false;
        self.carry_out(|machine, now| {
            let commands = machine.begin_import(context, base, now)?;
            is_complete = commands.is_empty();
            Ok(commands)
        })?;
        Ok(!is_complete)
    }

    /// The base is complete and synced.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn complete_import(&self, context: &RequestContext, base: Base, facts: ClusterFacts) -> Answer<()> {
        self.carry_out(|machine, now| machine.complete_import(context, base, facts, now))?;
        tracing::info!(node = %self.settings.node, lsn = %base.lsn, "the base is complete");
        Ok(())
    }

    /// Items of an import came: its writer lives.
    ///
    /// # Errors
    /// The writer has been fenced.
    pub fn renew_lease_by_import(&self, context: &RequestContext) -> Answer<()> {
        let _control = self.control.lock();
        let now = self.now();
        self.state.lock().machine.renew_lease_by_import(context, now)
    }

    /// Asks the machine and does what it says. Returns the answer that it ends with.
    fn carry_out(&self, ask: impl FnOnce(&mut SegmentMachine, Monotonic) -> Step) -> Answer<Option<Command>> {
        let _abort = AbortOnPanic;
        let _control = self.control.lock();
        let now = self.now();
        let (commands, sequence) = {
            let mut guarded = self.state.lock();
            let commands = ask(&mut guarded.machine, now)?;
            guarded.in_control = true;
            guarded.sequence += 1;
            (commands, guarded.sequence)
        };
        let done = self.execute(commands, sequence);
        let mut guarded = self.state.lock();
        guarded.in_control = false;
        match done {
            Ok(answer) => {
                self.publish(&guarded);
                self.wake_all();
                Ok(answer)
            }
            Err(error) => {
                self.latch_meta_failure(&mut guarded, &error);
                self.wake_all();
                let message = format!("node {}: {error}", self.settings.node);
                Err(guarded.machine.refuse(Refusal::NoSpace, now, message))
            }
        }
    }

    fn execute(&self, commands: Vec<Command>, sequence: u64) -> io::Result<Option<Command>> {
        let mut answer = None;
        for command in commands {
            match command {
                Command::DrainLog => {
                    let scl = self.log.drain();
                    let (commands, sequence) = {
                        let mut guarded = self.state.lock();
                        guarded.sequence += 1;
                        (guarded.machine.log_drained(scl), guarded.sequence)
                    };
                    answer = self.execute(commands, sequence)?;
                }
                Command::Persist(meta) => {
                    self.meta.persist(&meta, sequence)?;
                    self.log.set_history(effective_history(&meta));
                }
                Command::Cut { to } => {
                    self.log.cut(to);
                    if let Some(derived) = self.derived.get() {
                        derived.cut(to);
                    }
                }
                Command::DropBase => self.log.clear()?,
                Command::BeginLog { at } => self.begin_log(at)?,
                Command::AnswerPromise(_)
                | Command::AnswerStart(_)
                | Command::AnswerCreate
                | Command::AnswerImport => answer = Some(command),
            }
        }
        Ok(answer)
    }

    fn begin_log(&self, at: pg_quorum_types::Lsn) -> io::Result<()> {
        let (layout, history) = self.with_machine(|machine| {
            let meta = machine.meta();
            let layout = meta.base.map(|complete| WalLayout::new(&complete.facts));
            (layout, effective_history(meta))
        });
        let layout = layout.ok_or_else(|| io::Error::other("a log begins without a base"))?;
        self.log.begin_at(at, layout, history)
    }
}
