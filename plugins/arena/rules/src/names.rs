//! The names that the translators, their config and their callers agree on.

/// The tables.
pub mod table {
    /// Activities.
    pub const ACTIVITY: &str = "SIAMO.TILTAKGJENNOMFORING";
    /// Participants.
    pub const PARTICIPANT: &str = "SIAMO.TILTAKDELTAKER";
    /// Historical participants.
    pub const HIST: &str = "SIAMO.HIST_TILTAKDELTAKER";
}

/// The collections of entries.
pub mod collection {
    /// Arena activity id → [`ActivityState`](crate::state::ActivityState).
    pub const ACTIVITY: &str = "gjennomforing";
    /// Arena participant id → [`ParticipantState`](crate::state::ParticipantState).
    pub const PARTICIPANT: &str = "deltaker";
    /// The index of participants by person and activity, `PERSON/ACTIVITY/`.
    pub const BY_PERSON_AND_ACTIVITY: &str = "person-activity";
}

/// The id namespaces; both hold ids that amt knows.
pub mod namespace {
    /// Arena participant id ↔ amt uuid.
    pub const PARTICIPANT: &str = "deltaker";
    /// Arena hist id ↔ amt uuid.
    pub const HIST: &str = "hist-deltaker";
}

/// The endpoints.
pub mod endpoint {
    /// GET: `personId` → `fnr`.
    pub const PERSON: &str = "person";
    /// GET: `activityId` → the activity's remote id.
    pub const ACTIVITY_ID: &str = "activity-id";
    /// GET: `id`, the remote id → the activity.
    pub const ACTIVITY: &str = "activity";
    /// POST `{"personIdent"}` → the person's participations downstream.
    pub const PARTICIPATIONS: &str = "participations";
}

/// The targets.
pub mod target {
    /// Participants in an envelope.
    pub const AMT_TILTAK: &str = "amt-tiltak";
    /// Bare participants of single-place activities.
    pub const SINGLE: &str = "enkeltplass-deltaker";
}
