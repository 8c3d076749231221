//! Lines of bounded length from a stream.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::core::limits::CONTROL_LINE_BYTES_MAX;

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its newline.
    Whole(Vec<u8>),
    /// More than the limit without a newline.
    TooLong,
    /// The peer closed; a line without its newline is not a line.
    End,
}

/// Reads the next line, never holding more than the limit in memory.
///
/// # Errors
/// When the stream fails.
pub async fn next_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> std::io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(Line::End);
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = newline.unwrap_or(buffer.len());
        if line.len() + taken >= CONTROL_LINE_BYTES_MAX {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(&buffer[..taken]);
        reader.consume(newline.map_or(taken, |at| at + 1));
        if newline.is_some() {
            return Ok(Line::Whole(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut reader = BufReader::with_capacity(16, bytes);
        let mut out = Vec::new();
        loop {
            let line = next_line(&mut reader).await.unwrap();
            let last = matches!(line, Line::End | Line::TooLong);
            out.push(line);
            if last {
                return out;
            }
        }
    }

    #[tokio::test]
    async fn splits_lines_and_bounds_them() {
        assert_eq!(
            lines(b"ab\n\ncd").await,
            [Line::Whole(b"ab".to_vec()), Line::Whole(vec![]), Line::End]
        );
        let longest = vec![b'x'; CONTROL_LINE_BYTES_MAX - 1];
        let with_newline = [longest.as_slice(), b"\n"].concat();
        assert_eq!(lines(&with_newline).await, [Line::Whole(longest.clone()), Line::End]);
        let too_long = [longest.as_slice(), b"x\n"].concat();
        assert_eq!(lines(&too_long).await, [Line::TooLong]);
    }
}
