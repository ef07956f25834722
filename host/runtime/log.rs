//! What a guest says, made safe to show: control characters escaped, lines and the whole cut to size, and the cut said.

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Escapes control characters, which terminals obey, and cuts at `bytes_max`.
pub(super) fn plain(text: &str, bytes_max: usize) -> String {
    let mut plain = String::with_capacity(text.len().min(bytes_max));
    for char in text.chars() {
        if plain.len() + char.len_utf8() > bytes_max {
            plain.push('…');
            break;
        }
        // Beside controls: marks that turn the direction of text, which hide what is said.
        if char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            plain.extend(char.escape_default());
        } else {
            plain.push(char);
        }
    }
    plain
}

/// Whether `plain` would leave a text as it is; most texts are.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..0x7f).contains(&byte))
}

/// A log under construction.
pub(super) struct Log {
    lines: Vec<String>,
    bytes_max: usize,
    bytes: usize,
    cut_bytes: usize,
}

impl Log {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { lines: Vec::new(), bytes_max, bytes: 0, cut_bytes: 0 }
    }

    /// Adds what was written to standard output and error, line by line, and how much of it was cut before.
    pub(super) fn written(&mut self, bytes: &[u8], cut: usize) {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.line(&String::from_utf8_lossy(line));
        }
        self.cut_bytes += cut;
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) {
        let room = self.bytes_max.saturating_sub(self.bytes);
        if room == 0 {
            self.cut_bytes += line.len();
            return;
        }
        let kept = plain(line, room.min(LINE_BYTES_MAX));
        self.cut_bytes += line.len().saturating_sub(kept.len());
        self.bytes += kept.len();
        self.lines.push(kept);
    }

    /// The lines, the last of which says what was cut.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.cut_bytes > 0 {
            let used = self.bytes + self.cut_bytes;
            self.lines.push(format!("{} bytes of the log were cut: log_bytes_max is {}, used {used}", self.cut_bytes, self.bytes_max));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a\u{1b}[31mb\r\n", 100), "a\\u{1b}[31mb\\r\\n");
        assert_eq!(plain("æøå", 100), "æøå");
        assert!(!is_plain("\u{1b}"));
        assert!(is_plain("no more"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(plain("ååå", 3), "å…");
    }

    #[test]
    fn a_flood_is_cut_and_said() {
        let mut log = Log::new(10);
        log.line("12345678");
        log.line("abcdef");
        log.line("never");
        let lines = log.finish();
        assert_eq!(lines[0], "12345678");
        assert_eq!(lines[1], "ab…");
        assert!(lines[2].contains("log_bytes_max is 10"), "{lines:?}");
    }
}
