//! The capability sheet: what a plugin is called and what it may touch.

/// The capability sheet of a plugin: what it asks for or puts out beyond it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The plugin's name.
    pub name: String,
    /// Its version; a label for people, the component's digest is its identity.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// The tables it translates.
    pub tables: Vec<String>,
    /// The collections it reads.
    pub reads: Vec<String>,
    /// The collections it writes.
    pub writes: Vec<String>,
    /// The id namespaces it uses.
    pub namespaces: Vec<String>,
    /// The endpoints it calls.
    pub endpoints: Vec<String>,
    /// The targets it puts out to.
    pub targets: Vec<String>,
}

impl Description {
    /// A sheet without capabilities.
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), summary: summary.to_owned(), ..Self::default() }
    }

    /// Adds a table it translates.
    pub fn table(mut self, table: &str) -> Self {
        self.tables.push(table.to_owned());
        self
    }

    /// Adds a collection it reads.
    pub fn reads(mut self, collection: &str) -> Self {
        self.reads.push(collection.to_owned());
        self
    }

    /// Adds a collection it writes.
    pub fn writes(mut self, collection: &str) -> Self {
        self.writes.push(collection.to_owned());
        self
    }

    /// Adds an id namespace, to make, look up or bind ids in.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespaces.push(namespace.to_owned());
        self
    }

    /// Adds an endpoint it calls.
    pub fn endpoint(mut self, endpoint: &str) -> Self {
        self.endpoints.push(endpoint.to_owned());
        self
    }

    /// Adds a target it puts out to.
    pub fn target(mut self, target: &str) -> Self {
        self.targets.push(target.to_owned());
        self
    }
}
