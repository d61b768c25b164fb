//! What another run left.

use super::*;

#[tokio::test]
async fn a_killed_proxy_leaves_a_row_for_every_attempt() {
    let place = Place::new();
    let (ledger, _writer) = place.open();
    ledger.begin(attempt("ended")).unwrap().finish(completed());
    let _under_way = ledger.begin(attempt("under way")).unwrap();

    let left = place.killed();
    left.make_database().await;
    let (ledger, writer) = left.open();
    let figures = ledger.figures();
    assert_eq!((figures.waiting, figures.recovered), (2, 1));
    drain(writer).await;
    let rows = left.rows().await;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows.iter().filter(|row| row.outcome == "completed").count(),
        1
    );
    let died = rows
        .iter()
        .find(|row| row.request_id == "under way")
        .unwrap();
    assert_eq!(
        (died.outcome.as_str(), died.estimated),
        ("proxy_died", true)
    );
    assert_eq!((died.status, died.input, died.output), (0, 900, 400));
    assert_eq!(died.cost_microcents, Some(77));
}

#[tokio::test]
async fn what_is_replayed_again_and_again_is_written_once_and_then_goes() {
    let place = Place::new();
    let (ledger, _writer) = place.open();
    for _ in 0..3 {
        ledger.begin(attempt("again")).unwrap().finish(completed());
    }
    let _under_way = ledger.begin(attempt("under way")).unwrap();
    let left = place.killed();
    let place = Place::with_database().await;
    fs::create_dir(place.journal()).unwrap();
    for _ in 0..3 {
        // Killed after the rows were written, before the journal forgot them.
        fs::copy(
            left.journal().join("000001.jsonl"),
            place.journal().join("000001.jsonl"),
        )
        .unwrap();
        let (ledger, writer) = place.open();
        drain(writer).await;
        assert_eq!(place.rows().await.len(), 4);
        assert_eq!(ledger.figures().waiting, 0);
    }
    let (ledger, writer) = place.open();
    drain(writer).await;
    assert_eq!(segments(&place.journal()), Vec::<String>::new());
    assert_eq!(ledger.figures().journal_bytes, 0);
}

#[tokio::test]
async fn half_a_line_at_the_end_is_no_line() {
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    ledger.begin(attempt("torn")).unwrap().finish(completed());
    drop((ledger, writer));
    let path = place.journal().join("000001.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();

    let (ledger, writer) = place.open();
    drain(writer).await;
    let rows = place.rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].outcome, "proxy_died");
    assert_eq!(ledger.figures().damaged_lines, 0);
    assert!(!segments(&place.journal()).contains(&"000001.jsonl".to_owned()));
}

#[tokio::test]
async fn a_line_that_is_none_is_kept_aside() {
    let place = Place::with_database().await;
    let (ledger, writer) = place.open();
    ledger.begin(attempt("before")).unwrap().finish(completed());
    drop((ledger, writer));
    let path = place.journal().join("000001.jsonl");
    let mut lines = fs::read(&path).unwrap();
    lines.splice(0..0, b"{\"begin\":{\"id\":\xff\n".iter().copied());
    fs::write(&path, lines).unwrap();

    let (ledger, writer) = place.open();
    drain(writer).await;
    assert_eq!(place.rows().await.len(), 1);
    assert_eq!(ledger.figures().damaged_lines, 1);
    let aside = fs::read(place.journal().join("lines.damaged")).unwrap();
    assert_eq!(aside, b"{\"begin\":{\"id\":\xff\n");
}
