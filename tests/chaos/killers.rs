//! Messages that end every process which runs them, among three replicas: they are set aside, and nobody else is accused.

use std::time::{Duration, Instant};

use crate::script::Message;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

/// How long the replicas may take to find them out.
const AT_MOST: Duration = Duration::from_secs(120);
/// So many of them.
const KILLERS: usize = 2;

pub fn all() -> Vec<Experiment> {
    vec![experiment!("P16", short, "messages that end every process which runs them, three replicas", killers)]
}

async fn killers(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let rules: Vec<String> = (1..=KILLERS).map(|i| format!("guest/key:killer-{i}=abortx*")).collect();
    world.environment.push(("TOLK_FAULTS".to_owned(), rules.join(";")));
    world.start(3);
    world.load(100);
    for i in 1..=KILLERS {
        let killer = world.scripts.put("b", &format!("killer-{i}"));
        world.send(vec![Message { status: "failed", code: Some("killed-host"), outputs: Vec::new(), ..killer }]);
        world.load(40);
    }
    let (began, mut died) = (Instant::now(), 0);
    loop {
        let aside = world.books.count("SELECT count(*) FROM work WHERE code = 'killed-host'").await;
        for i in 0..world.hosts.len() {
            if !world.hosts[i].lives() {
                died += 1;
                world.hosts[i] = world.host(&[]);
            }
        }
        if aside == KILLERS as i64 {
            break;
        }
        assert!(began.elapsed() < AT_MOST, "{aside} of {KILLERS} are set aside; {died} hosts died");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    assert!((1..=2 * KILLERS).contains(&died), "{died} hosts died of {KILLERS} messages");
    world.load(60);
    let figures = world.rest(Resends::Suffix).await;
    format!("{died} hosts died of {KILLERS} messages, set aside within {took:.1?}; {figures}")
}
