/// A subject and the text that is registered under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectSchema {
    /// Subject, with prefix.
    pub subject: String,
    /// Text of the schema, as it is sent.
    pub text: String,
}

/// Subject of a topic's keys.
pub fn key_subject(topic: &str) -> String {
    format!("{topic}-key")
}

/// Subject of a topic's values.
pub fn value_subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// Both schemas of a topic.
pub(super) fn pair(topic: &str, key: &str, value: &str) -> [SubjectSchema; 2] {
    [
        SubjectSchema { subject: key_subject(topic), text: key.to_owned() },
        SubjectSchema { subject: value_subject(topic), text: value.to_owned() },
    ]
}
