//! Law L12, as far as a run without a network of its own can see it: no secret stands in a log or in a topic.

use crate::checker::Breach;

/// How every signed or encrypted token begins: `{"alg":…`, `{"typ":…`, `{"kid":…` in base64.
const TOKENS: [&str; 3] = ["eyJhbGciOi", "eyJ0eXAiOi", "eyJraWQiOi"];
/// A line of a key that is shorter than this might stand anywhere.
const SHORTEST_LINE: usize = 20;

/// L12: none of `texts`, each with its name, holds a line of the private key, a client assertion or an access token.
#[must_use]
pub fn none_told<'a>(private_key: &str, texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Breach> {
    let lines =
        private_key.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("---"));
    let canaries: Vec<&str> = lines.chain(TOKENS).collect();
    let mut breaches = Vec::new();
    for (name, text) in texts {
        for canary in canaries.iter().filter(|canary| text.contains(**canary)) {
            breaches.push(format!("L12: {name} holds a secret that begins with `{}`", &canary[..8]));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_a_token_that_are_told_are_found() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqG\nSM49\n-----END PRIVATE KEY-----\n";
        assert!(none_told(key, [("log", "a line about SM49 and -----BEGIN PRIVATE KEY-----")]).is_empty());
        assert_eq!(none_told(key, [("log", "key MIGHAgEAMBMGByqGSM49AgEGCCqG")]).len(), 1);
        assert_eq!(none_told(key, [("log", "bearer eyJhbGciOiJkaXIi..x"), ("topic", "fine")]).len(), 1);
    }
}
