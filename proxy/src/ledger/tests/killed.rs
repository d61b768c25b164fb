//! A proxy that is really killed, under load: this program again, as a child.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use super::*;

/// Where the victim works. Only the victim is given it.
const PLACE: &str = "TIDEPOOL_LEDGER_VICTIM";
const THREADS: usize = 4;
/// What it says before it is killed.
const LINES: usize = 6_000;

/// Makes attempts and says so, `begun` after each beginning and `ended` after each end, until killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the victim of the test below"]
async fn victim() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    let place = Path::new(&place);
    let database = DatabaseUrl::Sqlite(place.join("tidepool.db"));
    let (ledger, writer) =
        Ledger::open(&place.join("journal"), &database, budgets(&database)).unwrap();
    let cancel = CancellationToken::new();
    for _ in 0..THREADS {
        let ledger = ledger.clone();
        // Ends the victim if nobody listens any more.
        let listened_to = cancel.clone().drop_guard();
        thread::spawn(move || {
            let _listened_to = listened_to;
            loop {
                let entry = ledger.begin(attempt("victim")).unwrap();
                let id = entry.id();
                writeln!(io::stdout(), "begun {id}").unwrap();
                entry.finish(completed());
                writeln!(io::stdout(), "ended {id}").unwrap();
            }
        });
    }
    writer.run(cancel).await;
}

/// What a killed victim said last of each attempt.
fn killed_under_load(place: &Place) -> BTreeMap<String, bool> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("ledger::tests::killed::victim")
        .env(PLACE, place.0.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BTreeMap::new();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    for (number, line) in lines.map_while(Result::ok).enumerate() {
        if let Some((what, id)) = line
            .split_once(' ')
            .filter(|(_, id)| id.starts_with("att_"))
        {
            said.insert(id.to_owned(), what == "ended");
        }
        if number == LINES {
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    said
}

#[tokio::test]
async fn a_proxy_killed_under_load_leaves_each_attempt_as_one_row() {
    let place = Place::with_database().await;
    let mut said = killed_under_load(&place);
    // Its successor is killed too.
    said.extend(killed_under_load(&place));
    let (ledger, writer) = place.open();
    drain(writer).await;
    let rows = place.rows().await;
    for (id, ended) in &said {
        let row = rows.iter().find(|row| row.id == *id).unwrap();
        assert!(row.outcome == "completed" || !ended, "{row:?}");
    }
    // An attempt may have been noted and the proxy killed before it said so.
    let unsaid = rows.len() - said.len();
    assert!(unsaid <= 2 * THREADS, "{unsaid} of {}", rows.len());
    assert_eq!(ledger.figures().damaged_lines, 0);
}
