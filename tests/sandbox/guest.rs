//! Guests written by hand in the text format: a module with the bare contract, whose `translate` is the test's. Encoded as a component at
//! test time, so that no compiled guest is kept.

use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the verdict lies: all zero, so a `translated` without outputs once its first byte is 1.
pub const VERDICT: u32 = 1024;
/// Where a list of outputs or writes may be put.
pub const LIST: u32 = 2048;
/// Where the texts lie that the sheet names, and their lengths.
pub const NAME: (u32, u32) = (16, 5);
pub const TARGET: (u32, u32) = (64, 3);
pub const COLLECTION: (u32, u32) = (80, 5);
pub const NAMESPACE: (u32, u32) = (96, 7);
/// Where the message's key and payload are in the arguments.
pub const KEY_AT: u32 = 44;
pub const PAYLOAD_AT: u32 = 56;

/// A guest under construction.
pub struct Guest {
    /// Instructions of `translate`, which has the arguments' address in `$args` and must leave the verdict's address.
    pub translate: String,
    /// Instructions of `configure`, which must leave the address of its result; 128 is `ok`.
    pub configure: String,
    /// Fields of the module beside the contract: globals, functions, tables.
    pub fields: String,
    /// Imports of the module.
    pub imports: String,
    /// WIT of what the world imports, and the `import` lines of the world.
    pub wit: (String, String),
    /// Pages of the memory at the start.
    pub pages: u32,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            translate: translated("", 0),
            configure: "i32.const 128".to_owned(),
            fields: String::new(),
            imports: String::new(),
            wit: (String::new(), String::new()),
            pages: 2,
        }
    }
}

impl Guest {
    /// A guest that differs in `translate` only.
    pub fn translating(translate: impl Into<String>) -> Self {
        Self { translate: translate.into(), ..Self::default() }
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let module = wat::parse_str(self.module()).expect("the guest's text is well-formed");
        encode(module, &self.wit.0, &self.wit.1)
    }

    fn module(&self) -> String {
        let Self { translate, configure, fields, imports, pages, .. } = self;
        let data = sheet();
        // Arguments go into the last page and beyond, what the guest itself writes lies before.
        let heap = (pages - 1) << 16;
        format!(
            r#"(module
  {imports}
  (memory (export "memory") {pages})
  (global $heap (mut i32) (i32.const {heap}))
  {data}
  {fields}
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (loop $more
      (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
        (then (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))) unreachable)))
    (local.get $at))
  (func (export "tolk:translator/translator@0.1.0#describe") (result i32) i32.const 256)
  (func (export "tolk:translator/translator@0.1.0#configure") (param i32 i32) (result i32) {configure})
  (func (export "tolk:translator/translator@0.1.0#translate") (param $args i32) (result i32) (local $i i32) {translate})
  (func (export "cabi_post_tolk:translator/translator@0.1.0#translate") (param i32) (global.set $heap (i32.const {heap}))))"#
        )
    }
}

/// Encodes a module that has the contract's exports.
pub fn encode(mut module: Vec<u8>, packages: &str, imports: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = resolve.push_str("translator.wit", include_str!("../../wit/translator.wit")).expect("the contract parses");
    let world = if imports.is_empty() {
        resolve.select_world(&[contract], Some("plugin"))
    } else {
        let text = format!("package test:guest;\n{packages}\nworld guest {{\n{imports}\nexport tolk:translator/translator@0.1.0;\n}}");
        let package = resolve.push_str("guest.wit", &text).expect("the guest's world parses");
        resolve.select_world(&[package], Some("guest"))
    };
    embed_component_metadata(&mut module, &resolve, world.expect("the world exists"), StringEncoding::UTF8).expect("metadata fits");
    ComponentEncoder::default().validate(true).module(&module).and_then(|mut encoder| encoder.encode()).expect("the module fits the world")
}

/// Instructions that leave a `translated` verdict with `outputs` outputs at `LIST`, after other instructions.
pub fn translated(before: &str, outputs: u32) -> String {
    format!("{before} {} {} i32.const {VERDICT}", store_byte(VERDICT, 1), store(VERDICT + 8, &[LIST, outputs]))
}

/// Instructions that store words.
pub fn store(at: u32, words: &[u32]) -> String {
    let one = |(index, word): (usize, &u32)| format!("(i32.store (i32.const {}) (i32.const {word})) ", at as usize + 4 * index);
    words.iter().enumerate().map(one).collect()
}

/// Instructions that store a byte.
pub fn store_byte(at: u32, byte: u32) -> String {
    format!("(i32.store8 (i32.const {at}) (i32.const {byte})) ")
}

/// Instructions that write the first output: its target, and the payload that the two instructions give (address and length).
pub fn output(target: (u32, u32), payload_at: &str, payload_len: &str) -> String {
    format!(
        "{} {} (i32.store (i32.const {}) ({payload_at})) (i32.store (i32.const {}) ({payload_len})) ",
        store(LIST, &[target.0, target.1]),
        store_byte(LIST + 24, 1),
        LIST + 28,
        LIST + 32,
    )
}

/// A guest that puts out what it is given: the message's key and payload.
pub fn identity() -> Guest {
    let argument = |at: u32| format!("i32.load offset={at} (local.get $args)");
    let key = format!(
        "{} (i32.store (i32.const {}) ({})) (i32.store (i32.const {}) ({})) ",
        store_byte(LIST + 12, 1),
        LIST + 16,
        argument(KEY_AT),
        LIST + 20,
        argument(KEY_AT + 4)
    );
    let output = output(TARGET, &argument(PAYLOAD_AT), &argument(PAYLOAD_AT + 4));
    Guest::translating(translated(&format!("{output}{key}"), 1))
}

/// A verdict with `count` outputs whose records lie in memory, all of them with a target.
pub fn many_outputs(count: u32) -> String {
    let fill = format!(
        "(loop $again
           (i32.store (i32.add (i32.const {LIST}) (i32.mul (local.get $i) (i32.const 80))) (i32.const {}))
           (i32.store (i32.add (i32.const {}) (i32.mul (local.get $i) (i32.const 80))) (i32.const {}))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $i) (i32.const {count}))))",
        TARGET.0,
        LIST + 4,
        TARGET.1
    );
    translated(&fill, count)
}

/// A verdict without outputs and with `count` lines of 1,000 zero bytes in its log.
pub fn many_log_lines(count: u32) -> String {
    let fill = format!(
        "(loop $again
           (i32.store (i32.add (i32.const {LIST}) (i32.mul (local.get $i) (i32.const 8))) (i32.const 500000))
           (i32.store (i32.add (i32.const {}) (i32.mul (local.get $i) (i32.const 8))) (i32.const 1000))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $i) (i32.const {count}))))",
        LIST + 4
    );
    format!("{fill} {} {}", store(VERDICT + 64, &[LIST, count]), translated("", 0))
}

/// Instructions that leave a `translated` verdict with one binding at `LIST`.
pub fn binding(namespace: (u32, u32), key: (u32, u32), id: (u32, u32)) -> String {
    let record = store(LIST, &[namespace.0, namespace.1, key.0, key.1, id.0, id.1]);
    translated(&format!("{record} {}", store(VERDICT + 24, &[LIST, 1])), 0)
}

/// A function that keeps a compiler busy: a long chain of branches over many locals.
pub fn bomb(steps: usize) -> Vec<u8> {
    let locals = "i32 ".repeat(400);
    let body: String = (0..steps)
        .map(|n| {
            format!(
                "(if (local.get {}) (then (local.set {} (i32.add (local.get {}) (local.get {})))))\n",
                n % 399,
                (n * 7) % 400,
                n % 400,
                (n * 3) % 400
            )
        })
        .collect();
    let fields = format!("(func $bomb (local {locals}) {body})");
    Guest { fields, ..identity() }.component()
}

/// The description and its texts, as data.
fn sheet() -> String {
    let texts = [(NAME, "guest"), ((32, 5), "1.0.0"), ((48, 1), "*"), (TARGET, "out"), (COLLECTION, "seen-"), (NAMESPACE, "person-")];
    let mut data = String::new();
    for ((at, len), text) in texts {
        let text = text.trim_end_matches('-');
        let text = if text.len() == len as usize { text.to_owned() } else { format!("{text:-<width$}", width = len as usize) };
        writeln!(data, "(data (i32.const {at}) \"{text}\")").expect("a string takes all");
    }
    let list = |at: u32, (text, len): (u32, u32)| (at, vec![text, len]);
    let lists = [list(512, (48, 1)), list(520, COLLECTION), list(528, NAMESPACE), list(536, TARGET)];
    // Name, version, summary, tables, reads, writes, namespaces, endpoints, targets.
    let words = vec![NAME.0, NAME.1, 32, 5, 0, 0, 512, 1, 520, 1, 520, 1, 528, 1, 0, 0, 536, 1];
    for (at, words) in lists.into_iter().chain([(256, words)]) {
        let bytes: String = words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(data, "(data (i32.const {at}) \"{bytes}\")").expect("a string takes all");
    }
    data
}
