//! Where the store is: `sqlite:PATH` or `postgres://…`. Coordinator and proxy read it alike.
//!
//! A URL may hold a password. It is taken as it is given, so that no parser of arguments ever quotes it, and
//! read afterwards; neither its debug form nor an error shows more of it than its kind.

use std::{ffi::OsString, fmt, path::PathBuf};

/// The variable in which every program of Tidepool looks for it. A program that is given one must keep it
/// from others that it starts.
pub const VARIABLE: &str = "TIDEPOOL_DATABASE_URL";

/// A database URL as somebody gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenUrl(String);

impl From<String> for GivenUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for GivenUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for GivenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenUrl(…)")
    }
}

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// The whole URL, password included: for the driver, not for eyes.
    Postgres(String),
}

/// Why a text is no database URL. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    #[error("a database is `sqlite:PATH` or `postgres://USER@HOST/NAME`")]
    UnknownKind,
    #[error("`sqlite:` must be followed by the path of a file")]
    NoPath,
    #[error("`sqlite:` takes no host and no options: write `sqlite:/absolute/path`")]
    NotAPath,
    #[error("`postgres://` must be followed by a host and the name of a database")]
    NoDatabase,
}

impl GivenUrl {
    /// Reads it. A path that says where it begins (`/`, `.`) is a file even without `sqlite:`.
    pub fn read(&self) -> Result<DatabaseUrl, InvalidUrl> {
        let text = self.0.trim();
        if let Some(path) = text.strip_prefix("sqlite:") {
            return file(path);
        }
        if text.starts_with(['/', '.']) {
            return file(text);
        }
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(InvalidUrl::UnknownKind)?;
        let (place, _options) = rest.split_once('?').unwrap_or((rest, ""));
        match place.split_once('/') {
            Some((host, name)) if !host.is_empty() && !name.is_empty() => {
                Ok(DatabaseUrl::Postgres(text.to_owned()))
            }
            _ => Err(InvalidUrl::NoDatabase),
        }
    }
}

fn file(path: &str) -> Result<DatabaseUrl, InvalidUrl> {
    match path {
        "" => Err(InvalidUrl::NoPath),
        _ if path.starts_with("//") || path.contains('?') => Err(InvalidUrl::NotAPath),
        _ => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
    }
}

impl DatabaseUrl {
    /// As another program is told, password included: for its environment, which only its user can see.
    pub fn reveal(&self) -> OsString {
        match self {
            Self::Sqlite(path) => {
                let mut text = OsString::from("sqlite:");
                text.push(path);
                text
            }
            Self::Postgres(url) => url.into(),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseUrl, InvalidUrl> {
        GivenUrl::from(text).read()
    }

    #[test]
    fn a_file_is_named_with_or_without_its_kind() {
        for text in ["sqlite:/var/lib/t.db", "/var/lib/t.db"] {
            let path = PathBuf::from("/var/lib/t.db");
            assert_eq!(read(text), Ok(DatabaseUrl::Sqlite(path)));
        }
        assert_eq!(
            read("sqlite:t.db"),
            Ok(DatabaseUrl::Sqlite(PathBuf::from("t.db")))
        );
    }

    #[test]
    fn a_postgres_url_is_kept_whole() {
        for url in [
            "postgres://tidepool:pw@db.example/tidepool?sslmode=verify-full",
            "postgresql://tidepool@%2Frun%2Fpostgresql/tidepool",
        ] {
            assert_eq!(read(url), Ok(DatabaseUrl::Postgres(url.to_owned())));
        }
    }

    #[test]
    fn what_is_revealed_reads_back() {
        for text in [
            "sqlite:/var/lib/t.db",
            "postgres://u:pw@h/d?sslmode=require",
        ] {
            let url = read(text);
            let revealed = url.clone().map(|url| url.reveal());
            assert_eq!(revealed, Ok(text.into()));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wrong) in [
            ("", InvalidUrl::UnknownKind),
            ("mysql://u:secret@h/d", InvalidUrl::UnknownKind),
            ("tidepool.db", InvalidUrl::UnknownKind),
            ("sqlite:", InvalidUrl::NoPath),
            ("sqlite://var/t.db", InvalidUrl::NotAPath),
            ("sqlite:t.db?mode=ro", InvalidUrl::NotAPath),
            ("postgres://u:secret@h", InvalidUrl::NoDatabase),
            ("postgres:///tidepool", InvalidUrl::NoDatabase),
        ] {
            assert_eq!(read(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let given = GivenUrl::from("postgres://u:secret@h/d");
        let shown = format!("{given:?} {:?}", given.read());
        assert!(!shown.contains("secret"), "{shown}");
        let wrong = GivenUrl::from("postgras://u:secret@h/d").read();
        let shown = wrong.map_or_else(|wrong| format!("{wrong} {wrong:?}"), |_| String::new());
        assert!(!shown.is_empty() && !shown.contains("secret"), "{shown}");
    }
}
