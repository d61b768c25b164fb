//! Server-sent events, found in a stream as it passes.
//!
//! Nothing of an event is kept, so none can be too large: what is known between two chunks is a few bits
//! about the line they cut. A search for `\n\n` would be simpler and wrong, for lines end with LF, CRLF
//! or CR, mixed in one stream and cut anywhere. Nothing else ends a line: U+2028 and its like stand raw
//! in JSON strings. Rules: WHATWG HTML, "Interpreting an event stream".

use memchr::memchr2;

/// The most a forwarder holds back of an event that is not whole. Of a larger one it passes on what comes.
pub const HELD_MAX_BYTES: usize = 64 * 1024;

const NAME: &[u8] = b"data";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// Finds the events of one stream.
#[derive(Debug, Clone)]
pub struct Framer {
    place: Place,
    /// The last chunk ended with CR: an LF belongs to it.
    is_after_cr: bool,
    /// The event under way has a line that is not a comment.
    has_field: bool,
    /// The event under way has a line of data; the next is joined to it.
    has_data: bool,
}

/// What was found in a chunk, in the order of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// More of the data of the event under way.
    Data(&'a [u8]),
    /// All before this offset in the chunk is whole and can go: an event with its empty line, or a line
    /// between events that means nothing, such as a comment. Other bytes may be put in here.
    End(usize),
}

/// Where in a line the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes into what may be the mark at the start of the stream.
    Mark(usize),
    /// So many bytes into a line, all as in `data`.
    Name(usize),
    /// Right behind `data:`, where a space is no data.
    Colon,
    Data,
    Comment,
    OtherField,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            place: Place::Mark(0),
            is_after_cr: false,
            has_field: false,
            has_data: false,
        }
    }
}

impl Framer {
    /// Looks at the next chunk. Has to be run to its end, or what is left of the chunk is not seen.
    pub fn pieces<'f, 'c>(&'f mut self, chunk: &'c [u8]) -> Pieces<'f, 'c> {
        Pieces {
            framer: self,
            chunk,
            at: 0,
        }
    }

    /// Whether something came since the last [`Piece::End`]. At the end of the stream, an event that is
    /// not whole: browsers ignore it and several SDKs do not.
    pub fn is_mid_event(&self) -> bool {
        self.has_field || !matches!(self.place, Place::Mark(0) | Place::Name(0))
    }
}

/// The pieces of a chunk.
#[derive(Debug)]
#[must_use = "what is not looked at is not seen"]
pub struct Pieces<'f, 'c> {
    framer: &'f mut Framer,
    chunk: &'c [u8],
    at: usize,
}

impl<'c> Iterator for Pieces<'_, 'c> {
    type Item = Piece<'c>;

    fn next(&mut self) -> Option<Piece<'c>> {
        while let Some(&byte) = self.chunk.get(self.at) {
            if let Some(piece) = self.step(byte) {
                return Some(piece);
            }
        }
        None
    }
}

impl<'c> Pieces<'_, 'c> {
    /// Goes on by a byte or a run of them, or at least changes its place.
    fn step(&mut self, byte: u8) -> Option<Piece<'c>> {
        if std::mem::take(&mut self.framer.is_after_cr) && byte == LF {
            self.at += 1;
            return (!self.framer.is_mid_event()).then_some(Piece::End(self.at));
        }
        match self.framer.place {
            Place::Mark(matched) => self.mark(byte, matched),
            Place::Name(matched) => return self.name(byte, matched),
            Place::Colon => {
                self.at += usize::from(byte == b' ');
                self.framer.place = Place::Data;
            }
            Place::Data | Place::Comment | Place::OtherField if matches!(byte, CR | LF) => {
                return self.end_line(byte);
            }
            Place::Data => return Some(Piece::Data(self.rest_of_line())),
            Place::Comment | Place::OtherField => {
                self.rest_of_line();
            }
        }
        None
    }

    fn mark(&mut self, byte: u8, matched: usize) {
        if BYTE_ORDER_MARK.get(matched) == Some(&byte) {
            self.at += 1;
            self.framer.place = Place::Mark(matched + 1);
        } else if matched == 0 || matched == BYTE_ORDER_MARK.len() {
            self.framer.place = Place::Name(0);
        } else {
            self.framer.place = Place::OtherField;
        }
    }

    fn name(&mut self, byte: u8, matched: usize) -> Option<Piece<'c>> {
        let is_data = matched == NAME.len();
        match byte {
            CR | LF if is_data => {
                self.framer.place = Place::Data;
                self.begin_data()
            }
            CR | LF => self.end_line(byte),
            b':' if is_data => {
                self.at += 1;
                self.framer.place = Place::Colon;
                self.begin_data()
            }
            _ => {
                self.framer.place = match byte {
                    b':' if matched == 0 => Place::Comment,
                    _ if NAME.get(matched) == Some(&byte) => Place::Name(matched + 1),
                    _ => Place::OtherField,
                };
                self.at += 1;
                None
            }
        }
    }

    /// The lines of data of an event are joined by LF.
    fn begin_data(&mut self) -> Option<Piece<'c>> {
        std::mem::replace(&mut self.framer.has_data, true).then_some(Piece::Data(b"\n"))
    }

    fn rest_of_line(&mut self) -> &'c [u8] {
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let line = memchr2(CR, LF, rest).map_or(rest, |end| &rest[..end]);
        self.at += line.len();
        line
    }

    fn end_line(&mut self, byte: u8) -> Option<Piece<'c>> {
        self.at += 1;
        if byte == CR {
            let next = self.chunk.get(self.at);
            self.at += usize::from(next == Some(&LF));
            self.framer.is_after_cr = next.is_none();
        }
        match std::mem::replace(&mut self.framer.place, Place::Name(0)) {
            Place::Name(0) => {
                self.framer.has_field = false;
                self.framer.has_data = false;
            }
            Place::Comment => {}
            Place::Mark(_) | Place::Name(_) | Place::Colon | Place::Data | Place::OtherField => {
                self.framer.has_field = true;
            }
        }
        (!self.framer.has_field).then_some(Piece::End(self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of each event and the bytes up to its end; what is left comes last, with `false`.
    type Events = Vec<(String, Vec<u8>, bool)>;

    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Events {
        let mut framer = Framer::default();
        let mut events = Events::new();
        let mut data = Vec::new();
        let mut held = Vec::new();
        for chunk in chunks {
            let mut from = 0;
            for piece in framer.pieces(chunk) {
                match piece {
                    Piece::Data(more) => data.extend_from_slice(more),
                    Piece::End(at) => {
                        held.extend_from_slice(&chunk[from..at]);
                        from = at;
                        let text = String::from_utf8_lossy(&std::mem::take(&mut data)).into_owned();
                        events.push((text, std::mem::take(&mut held), true));
                    }
                }
            }
            held.extend_from_slice(&chunk[from..]);
        }
        if framer.is_mid_event() {
            events.push((String::from_utf8_lossy(&data).into_owned(), held, false));
        }
        events
    }

    /// The data of events that have some. Where CRLF is cut, a line end comes as one of its own.
    fn data(events: &Events) -> Vec<(&str, bool)> {
        let with_data = events.iter().filter(|(data, ..)| !data.is_empty());
        with_data
            .map(|(data, _, is_whole)| (data.as_str(), *is_whole))
            .collect()
    }

    fn bytes(events: &Events) -> Vec<u8> {
        events
            .iter()
            .flat_map(|(_, bytes, _)| bytes.clone())
            .collect()
    }

    const MIXED: &[u8] = b"\xef\xbb\xbf: hello\n\nevent: a\r\ndata: {\"one\":\r\ndata:  1}\r\n\r\n\
        data:two\r\rdata\ndata\nid: 7\ndatum: x\ndat: y\ndata: \n\n: OPENROUTER PROCESSING\r\n\r\n\
        data: [DONE]\n\r\n:\rretry: 5\n: within\n\ndata: \xe2\x80\xa8\xc2\x85\x0b\x0c\n\ndata: rest";

    #[test]
    fn events_end_at_an_empty_line_whatever_ends_a_line() {
        let events = events([MIXED]);
        let expected = [
            ("{\"one\":\n 1}", true),
            ("two", true),
            ("\n\n", true),
            ("[DONE]", true),
            ("\u{2028}\u{85}\u{b}\u{c}", true),
            ("rest", false),
        ];
        assert_eq!(data(&events), expected);
        assert_eq!(bytes(&events), MIXED);
        let ends: Vec<_> = events.iter().map(|(_, bytes, _)| bytes.len()).collect();
        // Comments between events, and the line end behind them, can go at once.
        assert_eq!(&ends[..5], [11, 1, 38, 10, 40]);
    }

    #[test]
    fn it_does_not_matter_where_a_stream_is_cut() {
        let whole = events([MIXED]);
        let single = events(MIXED.chunks(1));
        assert_eq!(data(&single), data(&whole));
        assert_eq!(bytes(&single), MIXED);
        for at in 0..=MIXED.len() {
            let (left, right) = MIXED.split_at(at);
            let cut = events([left, right]);
            assert_eq!(data(&cut), data(&whole), "cut at {at}");
            assert_eq!(bytes(&cut), MIXED);
        }
    }

    #[test]
    fn an_event_ends_with_its_last_cr_and_does_not_wait_for_an_lf() {
        let mut framer = Framer::default();
        let first: Vec<_> = framer.pieces(b"data: a\r\n\r").collect();
        assert_eq!(first, [Piece::Data(b"a"), Piece::End(10)]);
        assert!(!framer.is_mid_event());
        let second: Vec<_> = framer.pieces(b"\ndata: b\n\n").collect();
        assert_eq!(second, [Piece::End(1), Piece::Data(b"b"), Piece::End(10)]);
    }

    #[test]
    fn only_one_lf_belongs_to_a_cr() {
        let stream: &[u8] = b"data: a\r\n\ndata: b\r\n\n";
        let expected = [("a", true), ("b", true)];
        assert_eq!(data(&events([stream])), expected);
        assert_eq!(data(&events(stream.chunks(1))), expected);
    }

    #[test]
    fn what_is_not_whole_at_the_end_is_known() {
        for (stream, is_mid_event) in [
            ("", false),
            ("data: a\n\n", false),
            ("data: a\n\n: comment\n", false),
            ("\n", false),
            ("data: a\n", true),
            ("data: a\n: comment\n", true),
            ("event: a\r\n", true),
            ("data: a\n\nd", true),
            (": comm", true),
        ] {
            let mut framer = Framer::default();
            framer.pieces(stream.as_bytes()).for_each(drop);
            assert_eq!(framer.is_mid_event(), is_mid_event, "{stream:?}");
        }
    }

    #[test]
    fn half_a_byte_order_mark_begins_a_line_like_any_other() {
        assert_eq!(
            data(&events([&b"\xef\xbbdata: a\ndata: b\n\n"[..]])),
            [("b", true)]
        );
        assert_eq!(
            data(&events([&b"\xef\xbb\n\ndata: b\n\n"[..]])),
            [("b", true)]
        );
        let marked = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n";
        assert_eq!(data(&events([&marked[..]])), [("a", true)]);
    }

    fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let mut from = 0;
        ends.map(|end| bytes[std::mem::replace(&mut from, end)..end].to_vec())
            .collect()
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_as_they_went_in(
            stream in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                "(data|data:|: |event: x|[a\r\n ]|\r\n|\n\n)*".prop_map(String::into_bytes),
            ],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let whole = events([&stream[..]]);
            let pieces = cut(&stream, &cuts);
            let parted = events(pieces.iter().map(Vec::as_slice));
            prop_assert_eq!(data(&parted), data(&whole));
            let end_of_line = bytes(&parted);
            prop_assert!(stream.starts_with(&end_of_line));
            prop_assert!(stream.len() - end_of_line.len() <= 3, "only a mark or half of a CRLF is no event");
        }

        #[test]
        fn the_data_of_an_event_is_what_was_put_into_it(
            lines in prop::collection::vec("[^\r\n]{0,40}", 1..5),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let mut stream = String::from("event: x");
            stream.push_str(end);
            for line in &lines {
                stream.push_str("data: ");
                stream.push_str(line);
                stream.push_str(end);
            }
            stream.push_str(end);
            let found = events(stream.as_bytes().chunks(3));
            let whole: Vec<_> = found.iter().filter(|(_, bytes, _)| bytes.len() > 1).collect();
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(&whole[0].0, &lines.join("\n"));
            prop_assert!(whole[0].2);
        }
    }
}
