//! The names that the translator, its config and its callers agree on.

/// The only table: the recipients of a delivery. Its marks are the host's.
pub const TABLE: &str = "DATA";

/// The target: one message for each recipient that has a case.
pub const TARGET: &str = "omsorgsopptjening";

/// The parameter of a delivery that says which year was ordered.
pub const YEAR: &str = "year";

/// What is kept of a recipient that is handled without a message: message id → what is known of it.
pub const INFORMATION: &str = "barnetrygdinformasjon";

/// The index of that collection by delivery, `DELIVERY/`.
pub const BY_DELIVERY: &str = "innlesing";

/// The index of that collection by what was wrong, `TYPE/`.
pub const BY_TROUBLE: &str = "feil";

/// The note and the status of a recipient that is handled without a message.
pub const NOT_SENT: &str = "IKKE_SEND";

/// The endpoints; each call has the parameters `correlation` and `delivery`.
pub mod endpoint {
    /// POST: a person's identity numbers.
    pub const PERSON: &str = "person-identity";
    /// POST: the benefit cases of a number.
    pub const BENEFIT: &str = "barnetrygd";
    /// POST: the support decisions of a number.
    pub const SUPPORT: &str = "hjelpestonad";
}
