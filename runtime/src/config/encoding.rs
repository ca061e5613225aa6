//! Texts that people write with other tools: UTF-16 is named instead of being read as something else.

/// What an operator can do about a file that is no UTF-8.
pub const SAVE_AS_UTF8: &str = "save the file as UTF-8 (in PowerShell: `Set-Content -Encoding utf8`)";

/// Returns the text of a file, without a byte order mark.
///
/// # Errors
/// What the file is instead, as the end of a sentence that begins with its name.
pub fn text_of(bytes: Vec<u8>) -> Result<String, &'static str> {
    // Every second byte of a text of ASCII letters is zero, whether or not it begins with a mark.
    if bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || bytes.iter().take(64).any(|byte| *byte == 0)
    {
        return Err("is UTF-16 text or no text at all, and only UTF-8 is read");
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}
