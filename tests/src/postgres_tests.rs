//! PostgreSQL's own tests against a server: all scripts of a schedule of the source package, as `make
//! installcheck-parallel` and `make -C src/test/isolation installcheck` run them.

use std::fs;
use std::path::Path;
use std::process::Command;

use pg_quorum_deployment::{PostgresSource, Server, capture, pg_isolation_regress, pg_regress};

/// Where the core regression tests run, and leave what they have made.
pub const CORE_REGRESSION_DATABASE: &str = "regression";

/// `REGRESS_OPTS` of src/test/regress/GNUmakefile.
const CONCURRENT_TESTS: &str = "--max-concurrent-tests=20";

/// One of PostgreSQL's test suites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostgresTests {
    /// src/test/regress, parallel schedule.
    CoreRegression,
    /// src/test/isolation.
    Isolation,
}

/// What a run of the tests says.
#[derive(Debug)]
pub struct Outcome {
    /// Scripts that ran.
    pub scripts: usize,
    /// Output and differences, if a script failed.
    pub failure: Option<String>,
}

impl PostgresTests {
    /// Runs all scripts against a server that runs. What they read and write stands in `directory`, which is made.
    ///
    /// # Panics
    /// The source package is not prepared, or the program cannot be started.
    pub fn run(self, server: &Server, directory: &Path) -> Outcome {
        let source = PostgresSource::prepared(&server.binaries).expect("the server's source package");
        let (tests, schedule, database, program) = match self {
            PostgresTests::CoreRegression => (
                source.regress(),
                "parallel_schedule",
                CORE_REGRESSION_DATABASE,
                pg_regress(&server.binaries),
            ),
            PostgresTests::Isolation => (
                source.isolation(),
                "isolation_schedule",
                "isolation_regression", // a script names it
                pg_isolation_regress(&server.binaries),
            ),
        };
        // The server reads data files and libraries, and writes files: it must reach them, wherever the source is.
        let account = &server.account;
        account.create_dir(directory).expect("make the tests' directory");
        for (from, name) in [(tests, "input"), (source.libraries(), "libraries")] {
            let mut copy = Command::new("cp");
            capture(copy.arg("-r").arg(from).arg(directory.join(name))).expect("copy the tests");
        }
        let output_directory = directory.join("output");
        account
            .create_dir(&output_directory)
            .expect("make the output directory");
        let input = directory.join("input");
        let mut command = account.command(program.expect("find the test program"));
        command
            .current_dir(&output_directory)
            .arg(format!("--inputdir={}", input.display()))
            .arg(format!("--outputdir={}", output_directory.display()))
            .arg(format!("--bindir={}", server.binaries.postgres.display()))
            .arg(format!("--dlpath={}", directory.join("libraries").display()))
            .arg(format!("--schedule={}", input.join(schedule).display()))
            .arg(format!("--port={}", server.port))
            .arg(format!("--dbname={database}"))
            .args(["--host=127.0.0.1", "--user=postgres"]);
        if self == PostgresTests::CoreRegression {
            command.arg(CONCURRENT_TESTS);
        }
        let output = command.output().expect("run the tests");
        let said = String::from_utf8_lossy(&output.stdout);
        let scripts = said
            .lines()
            .filter(|line| line.contains("... ") && line.ends_with(" ms"))
            .count();
        let differences = || {
            let text = fs::read(output_directory.join("regression.diffs")).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        let failure = (!output.status.success()).then(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("{said}\n{errors}\n{}", differences())
        });
        Outcome { scripts, failure }
    }

    /// As [`PostgresTests::run`]; returns how many scripts ran.
    ///
    /// # Panics
    /// A script fails.
    pub fn pass(self, server: &Server, directory: &Path) -> usize {
        let outcome = self.run(server, directory);
        if let Some(failure) = outcome.failure {
            panic!("{failure}");
        }
        assert!(outcome.scripts > 0, "{self:?} ran no script");
        outcome.scripts
    }
}
