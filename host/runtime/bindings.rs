//! The typed bindings of the contract, made from `wit/`: the only `bindgen!` of the host. Parameters are borrowed, so that a payload is
//! copied once: into the guest's memory.

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
});
