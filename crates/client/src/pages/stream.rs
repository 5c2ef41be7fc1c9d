//! Questions to one segment and its answers, on one stream: a call of its own for each would cost more than most pages.
//!
//! The stream is opened by the first question, and by the first one after it has ended. Its end fails what was asked on it;
//! the reader asks another segment then.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pg_quorum_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::CallError;
use crate::channel::Node;

type Answer = Result<v1::GetPagesReply, CallError>;

/// See the module.
pub(super) struct PageStream {
    node: Node,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None`: no stream is open.
    questions: Option<mpsc::UnboundedSender<v1::PagesQuestion>>,
    /// By the questions' numbers. Empty without a stream.
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    last_id: u64,
}

impl PageStream {
    pub fn new(node: Node) -> PageStream {
        PageStream {
            node,
            state: Arc::default(),
        }
    }

    /// Asks and waits for the answer. Dropping the future forgets the question.
    ///
    /// # Errors
    /// The stream's, or that there was no answer in time.
    pub async fn ask(&self, request: v1::GetPagesRequest, patience: Duration) -> Answer {
        let (id, answer) = self.send(request);
        let _asked = Asked { stream: self, id };
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            // The task that reads answers has been dropped, with its runtime.
            Ok(Err(_)) => Err(CallError::Broken("the stream of pages has ended".to_owned())),
            Err(_) => Err(CallError::TimedOut(patience)),
        }
    }

    fn send(&self, request: v1::GetPagesRequest) -> (u64, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, sender);
        let questions = state.questions.get_or_insert_with(|| self.open());
        // Whoever has dropped the receiving end is about to fail all that waits.
        let _ = questions.send(v1::PagesQuestion {
            id,
            request: Some(request),
        });
        (id, answer)
    }

    fn open(&self) -> mpsc::UnboundedSender<v1::PagesQuestion> {
        let (questions, receiver) = mpsc::unbounded_channel();
        let (node, state) = (self.node.clone(), Arc::downgrade(&self.state));
        tokio::spawn(async move {
            let error = read_answers(&node, receiver, &state).await;
            if let Some(state) = state.upgrade() {
                state.lock().fail_all(&error);
            }
        });
        questions
    }
}

/// Until the stream ends. It does so also when its [`PageStream`] is dropped, and the questions' sender with it.
async fn read_answers(
    node: &Node,
    questions: mpsc::UnboundedReceiver<v1::PagesQuestion>,
    state: &Weak<Mutex<State>>,
) -> CallError {
    let mut client = node.pages();
    let mut answers = match client.stream_pages(UnboundedReceiverStream::new(questions)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status.into(),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return CallError::Broken("the node ended the stream of pages".to_owned()),
            Err(status) => return status.into(),
        };
        let Some(state) = state.upgrade() else {
            return CallError::Broken("nobody reads any more".to_owned());
        };
        let Some(reply) = answer.reply else {
            return CallError::Malformed("an answer without a reply".to_owned());
        };
        // Nobody may be waiting for it any more.
        if let Some(waiting) = state.lock().waiting.remove(&answer.id) {
            let _ = waiting.send(Ok(reply));
        }
    }
}

impl State {
    fn fail_all(&mut self, error: &CallError) {
        self.questions = None;
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.send(Err(error.clone()));
        }
    }
}

/// A question whose answer somebody waits for.
struct Asked<'a> {
    stream: &'a PageStream,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.stream.state.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::stream;
    use pg_quorum_proto::v1::pages_server::{Pages, PagesServer};
    use tonic::codegen::BoxStream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::{Timeouts, Transport};

    /// Answers questions in pairs, the second one first, with the LSN that was asked for; one LSN is an error.
    struct InPairs;

    const UNLUCKY: u64 = 13;

    fn answer(question: Result<v1::PagesQuestion, Status>) -> Result<v1::PagesAnswer, Status> {
        let v1::PagesQuestion { id, request } = question?;
        let lsn = request.unwrap_or_default().lsn;
        if lsn == UNLUCKY {
            return Err(Status::internal("unlucky"));
        }
        let reply = v1::GetPagesReply {
            lsn,
            ..v1::GetPagesReply::default()
        };
        Ok(v1::PagesAnswer {
            id,
            reply: Some(reply),
        })
    }

    #[tonic::async_trait]
    impl Pages for InPairs {
        type HoldReadPointStream = BoxStream<v1::HeldReadPoint>;
        type StreamPagesStream = BoxStream<v1::PagesAnswer>;

        async fn stream_pages(
            &self,
            request: Request<Streaming<v1::PagesQuestion>>,
        ) -> Result<Response<Self::StreamPagesStream>, Status> {
            let pairs = request.into_inner().chunks(2);
            let answers = pairs.flat_map(|pair| stream::iter(pair.into_iter().rev().map(answer)));
            Ok(Response::new(Box::pin(answers)))
        }

        async fn get_pages(
            &self,
            _request: Request<v1::GetPagesRequest>,
        ) -> Result<Response<v1::GetPagesReply>, Status> {
            Err(Status::unimplemented("streams only"))
        }

        async fn get_unchanged(
            &self,
            _request: Request<v1::GetUnchangedRequest>,
        ) -> Result<Response<v1::GetUnchangedReply>, Status> {
            Err(Status::unimplemented("streams only"))
        }

        async fn get_relation_size(
            &self,
            _request: Request<v1::GetRelationSizeRequest>,
        ) -> Result<Response<v1::GetRelationSizeReply>, Status> {
            Err(Status::unimplemented("streams only"))
        }

        async fn hold_read_point(
            &self,
            _request: Request<v1::HoldReadPointRequest>,
        ) -> Result<Response<Self::HoldReadPointStream>, Status> {
            Err(Status::unimplemented("streams only"))
        }
    }

    /// To a node that answers in pairs.
    async fn page_stream() -> PageStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = Server::builder().add_service(PagesServer::new(InPairs));
        tokio::spawn(server.serve_with_incoming(incoming));
        let transport = Transport {
            timeouts: Timeouts::default(),
            tls: None,
            token: None,
        };
        PageStream::new(Node::new(&address, &transport).expect("a node's address"))
    }

    async fn ask(stream: &PageStream, lsn: u64, patience: Duration) -> Result<u64, CallError> {
        let request = v1::GetPagesRequest {
            lsn,
            ..v1::GetPagesRequest::default()
        };
        Ok(stream.ask(request, patience).await?.lsn)
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_question_gets_its_own_answer_whatever_their_order() {
        let stream = page_stream().await;
        for first in (1..9).step_by(2) {
            let second = first + 1;
            let (one, other) = tokio::join!(ask(&stream, first, PATIENCE), ask(&stream, second, PATIENCE));
            assert_eq!((one.unwrap(), other.unwrap()), (first, second));
        }
        assert!(stream.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_stream_fails_what_was_asked_on_it_and_the_next_question_opens_another() {
        let stream = page_stream().await;
        let (one, unlucky) = tokio::join!(ask(&stream, 1, PATIENCE), ask(&stream, UNLUCKY, PATIENCE));
        for error in [one.unwrap_err(), unlucky.unwrap_err()] {
            assert!(
                matches!(&error, CallError::Broken(text) if text.contains("unlucky")),
                "{error}"
            );
        }
        let (one, other) = tokio::join!(ask(&stream, 3, PATIENCE), ask(&stream, 4, PATIENCE));
        assert_eq!((one.unwrap(), other.unwrap()), (3, 4));
    }

    #[tokio::test]
    async fn a_question_without_an_answer_is_given_up_and_forgotten() {
        let stream = page_stream().await;
        let error = ask(&stream, 1, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut(_)), "{error}");
        assert!(stream.state.lock().waiting.is_empty());
        let answered = ask(&stream, 2, PATIENCE).await;
        assert_eq!(
            answered.unwrap(),
            2,
            "the late answer to the first one harms nobody"
        );
    }

    #[tokio::test]
    async fn the_task_of_a_stream_does_not_keep_it_open() {
        let stream = page_stream().await;
        let (one, _) = tokio::join!(ask(&stream, 1, PATIENCE), ask(&stream, 2, PATIENCE));
        one.unwrap();
        let state = Arc::downgrade(&stream.state);
        drop(stream);
        assert_eq!(state.strong_count(), 0, "the task keeps nothing alive");
    }
}
