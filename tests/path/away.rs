//! Database and broker go away and come back: the host waits and says so, at its start and later, and nothing is lost.

use super::check;
use super::rig::Rig;
use super::script::Scripts;
use crate::support::kafka::Kafka;
use crate::support::services::Service;

const SLICE: usize = 300;

#[tokio::test]
async fn a_database_that_goes_and_comes_loses_nothing() {
    let mut postgres = Service::start("postgres");
    let rig = Rig::kafka(&postgres.lines[0].clone(), Kafka::shared()).await;
    let mut scripts = Scripts::new(11, rig.partitions);
    postgres.kill();
    rig.tolk.run(&["doctor"]).expect(3).says(&["FAIL  store", "-> start the database"]);
    let host = rig.start();
    host.until_said(0, "away; waiting, nothing is lost").await;
    let mut sent = scripts.some(SLICE);
    rig.produce(&sent);
    postgres.restart();
    rig.until_ended(&host, SLICE / 4).await;

    // Shorter than the lease, then longer: the host has to join again.
    for word in ["nothing is lost", "the lease had run out"] {
        let slice = scripts.some(SLICE);
        rig.produce(&slice);
        sent.extend(slice);
        rig.until_ended(&host, sent.len() - SLICE * 3 / 4).await;
        let from = host.said().len();
        postgres.kill();
        host.until_said(from, word).await;
        postgres.restart();
    }
    let rest = scripts.rest();
    rig.produce(&rest);
    sent.extend(rest);
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_loses_nothing() {
    let mut service = Service::start("kafka");
    let kafka = Kafka { brokers: service.lines[0].clone() };
    let rig = Rig::kafka(crate::support::postgres_url(), kafka).await;
    let mut scripts = Scripts::new(13, rig.partitions);
    let mut sent = scripts.some(SLICE);
    rig.produce(&sent);
    service.kill();
    rig.tolk.run(&["doctor"]).expect(3).says(&["FAIL  kafka test", "-> start the broker"]);
    let host = rig.start();
    host.until_said(0, "away; waiting, nothing is lost").await;
    service.restart();
    rig.until_ended(&host, SLICE / 4).await;

    let slice = scripts.some(SLICE);
    rig.produce(&slice);
    sent.extend(slice);
    rig.until_ended(&host, sent.len() - SLICE / 2).await;
    let from = host.said().len();
    service.kill();
    host.until_said(from, "away; waiting, nothing is lost").await;
    service.restart();
    let rest = scripts.rest();
    rig.produce(&rest);
    sent.extend(rest);
    rig.until_done(&host, &sent).await;
    host.terminate().await;
    check::everything(&rig, &sent, &scripts.entries).await;
}
