//! Short forms for the SQL that tests run.

use postgres::{Client, NoTls};

/// Connects to a server.
///
/// # Panics
/// It does not accept.
pub fn connect(uri: &str) -> Client {
    Client::connect(uri, NoTls).unwrap_or_else(|error| panic!("connect to {uri}: {error}"))
}

/// The message of an error, with the server's detail and hint.
pub fn message(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |db| {
            let more = [db.detail(), db.hint()].into_iter().flatten();
            more.fold(db.message().to_owned(), |text, part| format!("{text}\n{part}"))
        },
    )
}

/// One value of a query with one row and one column, as text.
///
/// # Panics
/// The query fails or returns something else.
pub fn value(client: &mut Client, query: &str) -> String {
    let rows = client
        .simple_query(query)
        .unwrap_or_else(|error| panic!("{query}: {}", message(&error)));
    for row in rows {
        if let postgres::SimpleQueryMessage::Row(row) = row {
            return row.get(0).unwrap_or("").to_owned();
        }
    }
    panic!("{query} returned no row");
}

/// Runs statements.
///
/// # Panics
/// One fails.
pub fn execute(client: &mut Client, statements: &str) {
    if let Err(error) = client.batch_execute(statements) {
        panic!("{statements}: {}", message(&error));
    }
}
