//! `kill -9` is a supported way to stop: ten times at random moments, with retries, waits and reads under way, and nothing is lost or doubled.

use super::check;
use super::rig::{Rig, Running};
use super::script::{Dice, Scripts};

const KILLS: u64 = 10;
/// Messages that come while a host lives.
const SLICE: usize = 150;

#[tokio::test]
async fn ten_kills_between_kafka_and_postgres_lose_and_double_nothing() {
    survives(Rig::shared_kafka().await).await;
}

#[tokio::test]
async fn ten_kills_between_files_and_sqlite_lose_and_double_nothing() {
    survives(Rig::files().await).await;
}

/// `TOLK_TEST_SEED` plays a run again, as far as the machine lets it.
fn seed() -> u64 {
    let given = std::env::var("TOLK_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0)
}

#[expect(clippy::print_stdout, reason = "shown where the test fails: it plays the run again")]
async fn survives(rig: Rig) {
    let seed = seed();
    println!("TOLK_TEST_SEED={seed}");
    let (mut dice, mut scripts, mut sent) = (Dice(seed), Scripts::new(seed, rig.partitions), Vec::new());
    for _ in 0..KILLS {
        let slice = scripts.some(SLICE);
        // Counted before anything of this slice can be through.
        let before = (rig.ended().await, rig.published());
        let first = dice.below(2) == 0;
        if first {
            rig.produce(&slice);
        }
        let host = rig.start();
        if !first {
            rig.produce(&slice);
        }
        sent.extend(slice);
        a_random_moment(&rig, &host, &mut dice, before).await;
        host.kill();
    }
    let rest = scripts.rest();
    rig.produce(&rest);
    sent.extend(rest);
    let host = rig.start();
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;
}

/// Returns at a moment in the host's start, in its work, or in its publishing.
async fn a_random_moment(rig: &Rig, host: &Running, dice: &mut Dice, (ended, published): (usize, usize)) {
    match dice.below(4) {
        0 => {}
        1 => host.until_said(0, "reading").await,
        2 => rig.until_ended(host, ended + 1 + dice.below(SLICE as u64 / 2) as usize).await,
        _ => rig.until_published(host, published + 1 + dice.below(SLICE as u64 / 2) as usize).await,
    }
    // Not waited for anything: the moment itself is what is tried.
    tokio::time::sleep(std::time::Duration::from_millis(dice.below(400))).await;
}
