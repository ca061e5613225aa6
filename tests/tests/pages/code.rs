//! The code that the pages show: spans within a sentence, and the lines of blocks (pure).

/// A piece of code on a page.
#[derive(Debug, Clone)]
pub(super) struct Code {
    /// Page and line, for the message.
    pub(super) place: String,
    /// Folder of the page, relative to the repository.
    pub(super) folder: String,
    /// What it says.
    pub(super) text: String,
    /// Language of the block; none for a span within a sentence.
    pub(super) block: Option<String>,
}

/// Reads a page. A block's lines come one by one; a span may go over the end of a line.
pub(super) fn read(page: &str, text: &str) -> Vec<Code> {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let piece = |line: usize, text: &str, block: Option<&str>| Code {
        place: format!("{page}:{}", line + 1),
        folder: folder.clone(),
        text: text.trim().to_owned(),
        block: block.map(str::to_owned),
    };
    let (mut found, mut block, mut prose): (_, Option<String>, _) = (Vec::new(), None, Vec::new());
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &block) {
            (Some(language), None) => block = Some(language.to_owned()),
            (Some(_), Some(_)) => block = None,
            (None, Some(language)) => found.push(piece(number, line, Some(language))),
            (None, None) => prose.push((number, line)),
        }
    }
    // Every second part between backticks is code. A paragraph ends at an empty line, and so does a backtick that has no partner.
    let mut inside = false;
    for (number, line) in prose {
        inside &= !line.trim().is_empty();
        for (at, part) in line.split('`').enumerate() {
            inside ^= at > 0;
            if inside && !part.is_empty() {
                found.push(piece(number, part, None));
            }
        }
    }
    found
}

/// Returns the words of a text that `accepts` takes for the inside of one, without the full stop or comma behind them.
pub(super) fn words(text: &str, accepts: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |letter| !accepts(letter))
        .map(|word| word.trim_matches(['.', ',', ':', '-']))
        .filter(|it| !it.is_empty())
}
