//! The PROXY protocol, version 2: what a hop that passes connections on unopened says first, namely who
//! really connects. Read from trusted hops only, and from them always.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Room for addresses and whatever a hop adds; more is none of a hop's.
const REST_MAX_BYTES: u16 = 1024;

/// Why a hop's first words are not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotProxied {
    #[error("read the PROXY header")]
    Read(#[from] std::io::Error),
    #[error("it does not begin with a PROXY header of version 2")]
    NoHeader,
    #[error("the PROXY header is too long or too short")]
    Length,
}

/// Who connects to the hop; `None`: the hop itself.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<IpAddr>, NotProxied> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [signature @ .., version, family, high, low] = head;
    if signature != *SIGNATURE || version >> 4 != 2 {
        return Err(NotProxied::NoHeader);
    }
    let length = u16::from_be_bytes([high, low]);
    if length > REST_MAX_BYTES {
        return Err(NotProxied::Length);
    }
    let mut rest = vec![0; length.into()];
    stream.read_exact(&mut rest).await?;
    match (version & 0x0f, family) {
        // LOCAL: a hop that only looks whether we are there.
        (0, _) => Ok(None),
        (1, 0x11) => {
            let address = rest.first_chunk::<4>().ok_or(NotProxied::Length)?;
            Ok(Some(Ipv4Addr::from(*address).into()))
        }
        (1, 0x21) => {
            let address = rest.first_chunk::<16>().ok_or(NotProxied::Length)?;
            Ok(Some(Ipv6Addr::from(*address).to_canonical()))
        }
        _ => Err(NotProxied::NoHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [
            SIGNATURE.as_slice(),
            &[0x20 | command, family],
            &length,
            rest,
        ]
        .concat()
    }

    async fn of(bytes: &[u8]) -> Result<Option<IpAddr>, NotProxied> {
        read(&mut &*bytes).await
    }

    #[tokio::test]
    async fn who_connects_is_the_source_and_what_follows_is_left() {
        let four = [192, 0, 2, 7, 127, 0, 0, 1, 1, 2, 3, 4];
        let mut bytes = header(1, 0x11, &four);
        bytes.extend(b"hello");
        let mut stream = bytes.as_slice();
        let found = read(&mut stream).await.unwrap();
        assert_eq!(found, Some([192, 0, 2, 7].into()));
        assert_eq!(stream, b"hello");
        let mut six = [0; 36];
        six[..16].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        let found = of(&header(1, 0x21, &six)).await.unwrap();
        assert_eq!(found, Some(Ipv6Addr::LOCALHOST.into()));
        let mapped = Ipv4Addr::new(192, 0, 2, 8).to_ipv6_mapped();
        six[..16].copy_from_slice(&mapped.octets());
        let found = of(&header(1, 0x21, &six)).await.unwrap();
        assert_eq!(found, Some([192, 0, 2, 8].into()));
        assert_eq!(of(&header(0, 0, &[])).await.unwrap(), None);
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00";
        assert!(matches!(of(hello).await, Err(NotProxied::NoHeader)));
        let version_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
        assert!(matches!(of(version_1).await, Err(NotProxied::NoHeader)));
        let short = header(1, 0x11, &[1, 2]);
        assert!(matches!(of(&short).await, Err(NotProxied::Length)));
        let long = header(1, 0x11, &[0; 2000]);
        assert!(matches!(of(&long).await, Err(NotProxied::Length)));
        let unix = header(1, 0x31, &[0; 216]);
        assert!(matches!(of(&unix).await, Err(NotProxied::NoHeader)));
        let cut = &header(1, 0x11, &[0; 12])[..20];
        assert!(matches!(of(cut).await, Err(NotProxied::Read(_))));
    }
}
