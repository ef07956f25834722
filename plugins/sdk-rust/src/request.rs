//! What a translator asks of the world, what is answered, and the typed questions between the two.

use crate::context::Context;
use crate::outcome::{Outcome, Stop};

/// A question as the host gets it. Requests are equal when they ask the same: a call's parameters are kept sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// An entry of a collection.
    Entry(Entry),
    /// A page of entries.
    Entries(Scan),
    /// The id of a source key; made where there is none.
    Id(Id),
    /// The id of a source key, if there is one.
    KnownId(KnownId),
    /// The source key of an id, if there is one.
    KeyOf(KeyOf),
    /// A call of an endpoint.
    Call(Call, bool),
}

impl Request {
    /// The same request in the one form that is compared.
    pub(crate) fn canonical(mut self) -> Self {
        if let Self::Call(call, _) = &mut self {
            call.params.sort();
        }
        self
    }
}

/// What the world answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The entry's value, if it exists.
    Entry(Option<Vec<u8>>),
    /// A page of entries.
    Entries(Page),
    /// An id, a uuid in its 36-character form.
    Id(String),
    /// An id, if there is one.
    KnownId(Option<String>),
    /// A source key, if there is one.
    KeyOf(Option<String>),
    /// A call's response.
    Response(Response),
    /// Why a lenient call got none.
    Unreachable(String),
}

/// A request and its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub reply: Reply,
}

/// Asks for an entry of a collection; the answer is its value, if it exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// The collection.
    pub collection: String,
    /// The entry's key.
    pub key: String,
}

impl Entry {
    /// Asks for the entry `key` of `collection`.
    pub fn new(collection: &str, key: impl ToString) -> Self {
        Self { collection: collection.to_owned(), key: key.to_string() }
    }
}

/// Asks for a page of the entries of a collection, by key or by a secondary index; the answer is a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scan {
    /// The collection.
    pub collection: String,
    /// The index; `None` scans by key.
    pub index: Option<String>,
    /// The start of the key, or with an index the start of the indexed value. End indexed values with a mark of their own where one
    /// may be the start of another.
    pub prefix: String,
    /// The key of the last entry of the page before.
    pub after: Option<String>,
    /// Entries at most; 100 unless said otherwise.
    pub limit: u32,
}

impl Scan {
    /// The first page of the whole collection, by key.
    pub fn new(collection: &str) -> Self {
        Self { collection: collection.to_owned(), index: None, prefix: String::new(), after: None, limit: 100 }
    }

    /// Only keys that start with `prefix`.
    pub fn prefix(mut self, prefix: impl ToString) -> Self {
        self.prefix = prefix.to_string();
        self
    }

    /// Only entries whose value in `index` starts with `value`.
    pub fn index(mut self, index: &str, value: impl ToString) -> Self {
        self.index = Some(index.to_owned());
        self.prefix(value)
    }

    /// The page that follows the entry `key`.
    pub fn after(mut self, key: &str) -> Self {
        self.after = Some(key.to_owned());
        self
    }

    /// At most so many entries.
    pub fn limit(mut self, entries: u32) -> Self {
        self.limit = entries;
        self
    }
}

/// A page of entries: keys and values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub items: Vec<(String, Vec<u8>)>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Asks for the id of a source key, which is made where there is none; the answer is a uuid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The id namespace.
    pub namespace: String,
    /// The source key.
    pub key: String,
}

impl Id {
    /// Asks for the id of `key` in `namespace`.
    pub fn new(namespace: &str, key: impl ToString) -> Self {
        Self { namespace: namespace.to_owned(), key: key.to_string() }
    }
}

/// Asks for the id of a source key without making one; the answer is a uuid, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KnownId {
    /// The id namespace.
    pub namespace: String,
    /// The source key.
    pub key: String,
}

impl KnownId {
    /// Asks for the known id of `key` in `namespace`.
    pub fn new(namespace: &str, key: impl ToString) -> Self {
        Self { namespace: namespace.to_owned(), key: key.to_string() }
    }
}

/// Asks for the source key of an id; the answer is the key, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyOf {
    /// The id namespace.
    pub namespace: String,
    /// The id, a uuid in its 36-character form.
    pub id: String,
}

impl KeyOf {
    /// Asks for the source key of `id` in `namespace`.
    pub fn new(namespace: &str, id: impl ToString) -> Self {
        Self { namespace: namespace.to_owned(), id: id.to_string() }
    }
}

/// Calls a configured endpoint; the answer is a [`Response`]. Statuses that the endpoint's config retries, and transport errors,
/// never reach the translator: the host tries the message again by itself. All other statuses do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// The endpoint's name in the host's config.
    pub endpoint: String,
    /// What fills its templates.
    pub params: Vec<(String, String)>,
    /// The request's body.
    pub body: Option<Vec<u8>>,
}

impl Call {
    /// Calls `endpoint`.
    pub fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), params: Vec::new(), body: None }
    }

    /// Fills a template; the order does not matter.
    pub fn param(mut self, name: &str, value: impl ToString) -> Self {
        self.params.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sends a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Takes whatever comes as the answer: any status, or the reason why nobody answered.
    pub fn lenient(self) -> LenientCall {
        LenientCall(self)
    }
}

/// A [`Call`] that takes whatever comes: the answer is `Ok` with any response, or `Err` with the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LenientCall(
    /// The call.
    pub Call,
);

/// An HTTP response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl Response {
    /// A response, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, or what is wrong with it and where, without its values.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("the answer {}", crate::message::json_trouble(&error)))
    }
}

/// Questions to an endpoint: [`Call`] and [`LenientCall`].
pub trait Calls {}
impl Calls for Call {}
impl Calls for LenientCall {}

/// A question with a typed answer. Tuples (up to six), vectors and options of questions are questions too, asked together.
pub trait Ask {
    /// What is answered; borrows from the context.
    type Answer<'a>;

    /// The answer, or `None` after adding what is still to be asked to `missing`.
    fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop>;
}

/// The reply to one request, read as one kind of answer.
fn read<'a, T>(
    ctx: &'a Context,
    missing: &mut Vec<Request>,
    request: Request,
    pick: impl FnOnce(&'a Reply) -> Option<T>,
) -> Result<Option<T>, Stop> {
    let request = request.canonical();
    let Some(reply) = ctx.reply(&request) else {
        missing.push(request);
        return Ok(None);
    };
    pick(reply).map(Some).ok_or_else(|| Outcome::failed("host-reply", "the host answered a request with another kind of reply").into())
}

macro_rules! ask {
    ($question:ty, $answer:ty, $request:expr, $pattern:pat => $read:expr) => {
        impl Ask for $question {
            type Answer<'a> = $answer;

            fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop> {
                read(ctx, missing, Request::from(self.clone()), |reply| match reply {
                    $pattern => Some($read),
                    _ => None,
                })
            }
        }

        impl From<$question> for Request {
            fn from(question: $question) -> Self {
                $request(question).canonical()
            }
        }
    };
}

ask!(Entry, Option<&'a [u8]>, Request::Entry, Reply::Entry(value) => value.as_deref());
ask!(Scan, &'a Page, Request::Entries, Reply::Entries(page) => page);
ask!(Id, &'a str, Request::Id, Reply::Id(id) => id.as_str());
ask!(KnownId, Option<&'a str>, Request::KnownId, Reply::KnownId(id) => id.as_deref());
ask!(KeyOf, Option<&'a str>, Request::KeyOf, Reply::KeyOf(key) => key.as_deref());
ask!(Call, &'a Response, |call| Request::Call(call, false), Reply::Response(response) => response);

impl From<LenientCall> for Request {
    fn from(LenientCall(call): LenientCall) -> Self {
        Self::Call(call, true).canonical()
    }
}

impl Ask for LenientCall {
    type Answer<'a> = Result<&'a Response, &'a str>;

    fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop> {
        read(ctx, missing, self.clone().into(), |reply| match reply {
            Reply::Response(response) => Some(Ok(response)),
            Reply::Unreachable(reason) => Some(Err(reason.as_str())),
            _ => None,
        })
    }
}

impl<Q: Ask> Ask for Vec<Q> {
    type Answer<'a> = Vec<Q::Answer<'a>>;

    fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop> {
        let mut answers = Vec::with_capacity(self.len());
        for question in self {
            answers.extend(question.ask(ctx, missing)?);
        }
        Ok((answers.len() == self.len()).then_some(answers))
    }
}

impl<Q: Ask> Ask for Option<Q> {
    type Answer<'a> = Option<Q::Answer<'a>>;

    fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop> {
        match self {
            Some(question) => Ok(question.ask(ctx, missing)?.map(Some)),
            None => Ok(Some(None)),
        }
    }
}

macro_rules! ask_together {
    ($($question:ident $at:tt),+) => {
        impl<$($question: Ask),+> Ask for ($($question,)+) {
            type Answer<'a> = ($($question::Answer<'a>,)+);

            fn ask<'a>(&self, ctx: &'a Context, missing: &mut Vec<Request>) -> Result<Option<Self::Answer<'a>>, Stop> {
                // All are asked before any absence ends it.
                let answers = ($(self.$at.ask(ctx, missing)?,)+);
                Ok((|| Some(($(answers.$at?,)+)))())
            }
        }
    };
}

ask_together!(A 0);
ask_together!(A 0, B 1);
ask_together!(A 0, B 1, C 2);
ask_together!(A 0, B 1, C 2, D 3);
ask_together!(A 0, B 1, C 2, D 3, E 4);
ask_together!(A 0, B 1, C 2, D 3, E 4, F 5);
