//! Artefacts over the link: whole or not at all, wherever they are cut off, and beside everything else.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::RngCore as _;
use tidepool_agent::artefact::NotFetched;
use tidepool_certs::release::ReleaseKey;
use tidepool_coordinator::{
    artefacts::{self, Artefacts},
    doorbell::Ring,
};
use tidepool_shared::{
    artefact::{Kind, Sha256, Statement},
    frame::Assembly,
    message::{ArtefactFollows, Refused},
};
use tokio::time::timeout;

use super::rig::{Raw, Rig, soon};

const SIZE: usize = 1024 * 1024 + 17;
const PATIENCE: Duration = Duration::from_secs(20);

/// A signed file of random bytes among the coordinator's artefacts.
fn publish(rig: &Rig) -> (Statement, Vec<u8>) {
    let mut bytes = vec![0; SIZE];
    rand::rng().fill_bytes(&mut bytes);
    let file = rig.dir.join("program");
    fs::write(&file, &bytes).unwrap();
    let (sha256, size) = artefacts::measure(&file).unwrap();
    let statement = Statement {
        kind: Kind::Agent,
        version: "0.2.0".parse().unwrap(),
        sha256,
        size,
        replaces_up_to: None,
    };
    let key = ReleaseKey::create(&rig.dir.join("release.key")).unwrap();
    let signed = serde_json::to_vec(&key.sign(&statement)).unwrap();
    fs::write(artefacts::signed_beside(&file), signed).unwrap();
    let added = Artefacts::new(rig.dir.join("artefacts"))
        .add(&file)
        .unwrap();
    assert_eq!(added.statement, statement);
    (statement, bytes)
}

fn partial(depot: &Path, statement: &Statement) -> PathBuf {
    depot.join(format!("agent/{}.partial", statement.sha256))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// Everything that comes on a stream: its first frame, as what it must be, and the bytes behind.
async fn whole(stream: quinn::RecvStream) -> (u64, Vec<u8>) {
    whole_after(&[], stream).await
}

async fn whole_after(head: &[u8], mut stream: quinn::RecvStream) -> (u64, Vec<u8>) {
    let all = timeout(PATIENCE, stream.read_to_end(2 * SIZE));
    let mut assembly = Assembly::default();
    assembly.push(head);
    assembly.push(&all.await.expect("never whole").unwrap());
    let frame = assembly.next_frame().unwrap().expect("half a frame");
    let ArtefactFollows { size } = frame.message().unwrap();
    (size, assembly.into_rest())
}

async fn refusal(mut stream: quinn::RecvStream) -> Refused {
    let all = timeout(PATIENCE, stream.read_to_end(1024));
    let mut assembly = Assembly::default();
    assembly.push(&all.await.expect("no answer").unwrap());
    let frame = assembly.next_frame().unwrap().expect("half a frame");
    frame.message().expect("it was not refused")
}

#[tokio::test]
async fn an_agent_fetches_what_was_signed_and_leaves_nothing_else() {
    let rig = Rig::start().await;
    let (statement, bytes) = publish(&rig);
    let server = rig.plan().await;
    let mut agent = rig.agent(rig.enrol(&server).await.unwrap());
    agent.connected().await;
    let directory = rig.dir.join("depot");
    fs::create_dir_all(directory.join("agent")).unwrap();
    fs::write(directory.join("agent/of-before"), "x").unwrap();
    let path = agent.depot(&directory).fetch(&statement).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::read_dir(directory.join("agent")).unwrap().count(), 1);
    // Whoever asks again has it at once.
    let again = agent.depot(&directory).fetch(&statement).await.unwrap();
    assert_eq!(again, path);
    agent.stop().await;
}

#[tokio::test]
async fn a_transfer_that_was_cut_off_goes_on_where_it_stopped() {
    let rig = Rig::start_with(|settings| settings.pacing.rate = 1024 * 1024).await;
    let (statement, bytes) = publish(&rig);
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let directory = rig.dir.join("depot");
    let partial = partial(&directory, &statement);

    let mut agent = rig.agent(identity);
    agent.connected().await;
    let depot = agent.depot(&directory);
    tokio::select! {
        fetched = depot.fetch(&statement) => panic!("too soon: {fetched:?}"),
        () = soon("half there", || length(&partial) > 256 * 1024) => {}
    }
    agent.stop().await;
    let kept = length(&partial);
    assert!(kept < statement.size);

    let identity =
        tidepool_agent::identity::Identity::load(&rig.identity_dir(&server), server.id, "machine");
    let mut agent = rig.agent(identity.unwrap().unwrap());
    agent.connected().await;
    let depot = agent.depot(&directory);
    let fetch = depot.fetch(&statement);
    tokio::pin!(fetch);
    tokio::select! {
        fetched = &mut fetch => panic!("too soon: {fetched:?}"),
        () = soon("more there", || length(&partial) != kept) => {}
    }
    assert!(length(&partial) > kept, "it began anew");
    let path = fetch.await.unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    agent.stop().await;
}

#[tokio::test]
async fn a_document_is_not_held_up_by_a_transfer() {
    let rig = Rig::start_with(|settings| settings.pacing.rate = 256 * 1024).await;
    let (statement, _) = publish(&rig);
    let server = rig.plan().await;
    let mut agent = rig.agent(rig.enrol(&server).await.unwrap());
    agent.connected().await;
    agent.say_warm();
    rig.becomes_warm(server.id).await;
    let directory = rig.dir.join("depot");
    let partial = partial(&directory, &statement);
    let depot = agent.depot(&directory);
    let claimed = async {
        soon("under way", || length(&partial) > 0).await;
        let document = rig.claim().await;
        rig.doorbell.ring(Ring::Server(server.id));
        assert_eq!(agent.offered().await, document);
    };
    tokio::select! {
        fetched = depot.fetch(&statement) => panic!("before the document: {fetched:?}"),
        () = claimed => {}
    }
    agent.stop().await;
}

#[tokio::test]
async fn what_was_altered_on_the_coordinator_is_never_kept() {
    let rig = Rig::start().await;
    let (statement, mut bytes) = publish(&rig);
    bytes[SIZE / 2] ^= 1;
    fs::write(rig.dir.join("artefacts/agent-0.2.0/bytes"), &bytes).unwrap();
    let server = rig.plan().await;
    let mut agent = rig.agent(rig.enrol(&server).await.unwrap());
    agent.connected().await;
    let directory = rig.dir.join("depot");
    let fetched = agent.depot(&directory).fetch(&statement).await;
    assert!(matches!(fetched, Err(NotFetched::Altered)), "{fetched:?}");
    assert_eq!(fs::read_dir(directory.join("agent")).unwrap().count(), 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_transfer_begins_where_it_is_asked_to_and_a_server_has_one() {
    let rig = Rig::start_with(|settings| settings.pacing.rate = 1024 * 1024).await;
    let (statement, bytes) = publish(&rig);
    let server = rig.plan().await;
    let mut raw = Raw::dial(&rig, &rig.enrol(&server).await.unwrap()).await;
    raw.welcomed(server.id).await;
    let from = SIZE - 300_000;
    let mut first = raw
        .fetch(statement.sha256, u64::try_from(from).unwrap())
        .await;
    let mut head = [0; 4];
    first.read_exact(&mut head).await.unwrap();
    let refused = refusal(raw.fetch(statement.sha256, 0).await).await;
    assert!(refused.retry, "{refused:?}");
    assert_eq!(
        whole_after(&head, first).await,
        (statement.size, bytes[from..].to_vec())
    );

    let beyond = raw.fetch(statement.sha256, statement.size + 1).await;
    assert!(!refusal(beyond).await.retry);
    let end = raw.fetch(statement.sha256, statement.size).await;
    assert_eq!(whole(end).await, (statement.size, Vec::new()));
    let unknown = raw.fetch(Sha256([0; 32]), 0).await;
    assert!(
        refusal(unknown).await.retry,
        "another coordinator may have it"
    );
}
