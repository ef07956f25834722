//! Tolk's SDK for translators in Rust: plain types, straight-line code, one macro. Knows nothing of the host's insides.
//!
//! A translator is a pure function from a message to an [`Outcome`]. It has no clock, network, files or randomness: what it needs
//! from the world it asks its [`Context`] for, and the `?` after each question returns to the host while the answer is missing.
//! The host resolves what was asked for and calls again, so an author never sees a round. Two rules follow: ask the same
//! questions for the same message and answers, and ask for independent things together with [`Context::all`].
//!
//! ```
//! use tolk_sdk::{Call, Context, Description, Entry, Id, Message, Outcome, Stop, Translator};
//!
//! struct Orders;
//!
//! impl Translator for Orders {
//!     fn describe() -> Description {
//!         Description::new("orders", "1.0.0", "Orders with their customers' names")
//!             .table("SHOP.ORDERS")
//!             .reads("customer")
//!             .namespace("order")
//!             .endpoint("stock")
//!             .target("orders")
//!     }
//!
//!     fn configure(_config: &str) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
//!         let order: serde_json::Value = message.json()?;
//!         let number = order["number"].as_i64().ok_or_else(|| Outcome::rejected("no-number", "the order has no number"))?;
//!         let customer = Entry::new("customer", &order["customer"]);
//!         // Three independent questions: one round.
//!         let (name, id, stock) =
//!             ctx.all((customer.clone(), Id::new("order", number), Call::new("stock").param("item", &order["item"])))?;
//!         let Some(name) = name else {
//!             return Ok(Outcome::waiting("customer-missing", "the customer has not come yet").on(customer).into());
//!         };
//!         let name = String::from_utf8_lossy(name);
//!         let payload = serde_json::json!({ "id": id, "customer": name, "inStock": stock.status == 200 });
//!         Ok(Outcome::put("orders", id, payload.to_string()).into())
//!     }
//! }
//!
//! tolk_sdk::register!(Orders);
//!
//! // Native, without a host: `testing::World` answers what is asked.
//! use tolk_sdk::testing::{World, message};
//! let mut world = World::new();
//! world.entry("customer", "7", "Kari").endpoint("stock", |_call| tolk_sdk::Response::new(404, "").into());
//! let played = world.play(&Orders, &message("SHOP.ORDERS", r#"{"number":1,"customer":7,"item":3}"#));
//! let payload: serde_json::Value = serde_json::from_str(&played.outputs()[0].payload_text()).unwrap();
//! assert_eq!(payload, serde_json::json!({ "id": world.id_of("order", 1), "customer": "Kari", "inStock": false }));
//! assert_eq!(played.rounds, 2);
//! ```

extern crate self as tolk_sdk;

mod context;
mod description;
mod message;
mod outcome;
mod request;
mod time;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod component;
pub mod testing;

pub use context::Context;
pub use description::Description;
pub use message::{Cause, Delivery, Headers, Message};
pub use outcome::{Action, Binding, Dismissal, Fault, FaultKind, Outcome, Output, Stop, Translation, Wait, Write};
pub use request::{Answer, Ask, Call, Calls, Entry, Id, KeyOf, KnownId, LenientCall, Page, Reply, Request, Response, Scan};
pub use time::{LocalTime, Now};

/// A translator: what a plugin is. Made once per instance by [`configure`](Self::configure), then called once per message and round.
pub trait Translator: Sized + 'static {
    /// The capability sheet. What the translator asks for or puts out beyond it is refused by the host.
    fn describe() -> Description;

    /// Makes the translator from its config, a text of its own choosing; empty where none was given. The error is for the person
    /// who activates it: name the key and what is wrong with it.
    fn configure(config: &str) -> Result<Self, String>;

    /// Translates one message. `Err` ends the message as well: by `?` on a question that is not answered yet (the host answers and
    /// calls again), or by any outcome turned into a [`Stop`].
    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop>;
}

/// Makes a [`Translator`] the component's export. Once per crate, at its top level; outside wasm it only checks the type.
#[macro_export]
macro_rules! register {
    ($translator:ty) => {
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&str) -> ::std::result::Result<$translator, ::std::string::String> = <$translator as $crate::Translator>::configure;

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static TRANSLATOR: ::std::cell::RefCell<::std::option::Option<$translator>> = const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }
            struct Plugin;
            impl $crate::component::Guest for Plugin {
                fn describe() -> $crate::component::wire::Description {
                    $crate::component::describe::<$translator>()
                }
                fn configure(config: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    TRANSLATOR.with(|slot| $crate::component::configure(slot, &config))
                }
                fn translate(
                    message: $crate::component::wire::Message,
                    context: $crate::component::wire::Context,
                ) -> $crate::component::wire::Verdict {
                    TRANSLATOR.with(|slot| $crate::component::translate(slot, message, context))
                }
            }
            $crate::component::export_plugin!(Plugin with_types_in $crate::component::bindings);
        };
    };
}
