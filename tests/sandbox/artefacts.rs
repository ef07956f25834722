//! Compiling happens in a child with limits; an artefact runs only where this installation sealed it.

use tolk::plugin::{Context, Digest, Limits};
use tolk::runtime::{Config, Runtime};

use super::guest;
use super::{message, runtime, settings};

const SECRET: [u8; 32] = [7; 32];

#[tokio::test]
async fn an_artefact_of_the_child_runs_here() {
    let component = guest::identity().component();
    let artefact = runtime().compile(&component, &SECRET).await.expect("it compiles");
    let digest = Digest::of(&component);
    let translator = runtime().load(digest, &artefact, &SECRET, Limits::default(), "").expect("it loads");
    let verdict = translator.translate(&mut runtime().here(), &message("k", b"p"), "feed", &Context::default());
    assert!(verdict.is_ok(), "{verdict:?}");
    let other =
        Runtime::new(&Config { memory_bytes_max: 1 << 30, threads: 1, instances_max: 4, ..settings() }).expect("the runtime starts");
    assert_eq!(other.engine_key(), runtime().engine_key(), "sizes of pools are no matter of compiled code");
    assert!(other.load(digest, &artefact, &SECRET, Limits::default(), "").is_ok());
}

#[tokio::test]
async fn a_tampered_artefact_is_refused() {
    let component = guest::identity().component();
    let artefact = runtime().compile(&component, &SECRET).await.expect("it compiles");
    let digest = Digest::of(&component);
    let refused = |digest: Digest, artefact: &[u8], secret: &[u8; 32]| {
        let error = runtime().load(digest, artefact, secret, Limits::default(), "").err().expect("refused").to_string();
        assert!(error.contains("seal") && error.contains(&digest.short()) && error.contains(&runtime().engine_key()), "{error}");
    };
    for at in [0, 31, 32, artefact.len() / 2, artefact.len() - 1] {
        let mut tampered = artefact.clone();
        tampered[at] ^= 1;
        refused(digest, &tampered, &SECRET);
    }
    refused(digest, &artefact[..artefact.len() - 1], &SECRET);
    refused(digest, &[], &SECRET);
    refused(Digest::of(b"another component"), &artefact, &SECRET);
    refused(digest, &artefact, &[8; 32]);
}

#[tokio::test]
async fn a_compile_bomb_ends_in_the_child() {
    let component = guest::bomb(30_000);
    let slow = Runtime::new(&Config { compile_s_max: 1, threads: 1, instances_max: 4, ..settings() }).expect("the runtime starts");
    let error = slow.compile(&component, &SECRET).await.expect_err("refused").to_string();
    assert!(error.contains("compile_s_max is 1 s") && error.contains("used"), "{error}");
    let narrow =
        Runtime::new(&Config { compile_bytes_max: 100 << 20, threads: 1, instances_max: 4, ..settings() }).expect("the runtime starts");
    let error = narrow.compile(&component, &SECRET).await.expect_err("refused").to_string();
    assert!(error.contains("compile_bytes_max is 104857600 bytes") && error.contains("used"), "{error}");
}

#[tokio::test]
async fn what_is_not_valid_never_reaches_the_child() {
    let nowhere = Config { compiler: Some("/nonexistent/compiler".into()), threads: 1, instances_max: 4, ..settings() };
    let runtime = Runtime::new(&nowhere).expect("the runtime starts");
    let error = runtime.compile(b"not wasm", &SECRET).await.expect_err("refused").to_string();
    assert!(error.contains("not WebAssembly"), "{error}");
    let error = runtime.compile(&guest::identity().component(), &SECRET).await.expect_err("no child").to_string();
    assert!(error.contains("start the compiling child"), "{error}");
}
