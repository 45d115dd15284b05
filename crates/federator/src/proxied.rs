//! The PROXY protocol, versions 1 and 2: what a TCP load balancer says ahead of TLS about where a connection comes from.

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header of version 1, its line break included.
const MAX_LINE: usize = 107;
/// Longest header of version 2, its extensions included.
const MAX_BINARY: usize = 4 * 1024;
/// With these bytes version 2 begins; version 1 is never shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version, kind and length of version 2.
const FIXED: usize = 16;

/// Reads the header and nothing after it. `None` when the load balancer speaks for itself, as for a check of its own.
/// The caller bounds the time.
pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut header = vec![0; SIGNATURE.len()];
    io.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(FIXED, 0);
        io.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
        if FIXED + length > MAX_BINARY {
            return Err(wrong("PROXY header too long"));
        }
        header.resize(FIXED + length, 0);
        io.read_exact(&mut header[FIXED..]).await?;
    } else {
        if !header.starts_with(b"PROXY ") {
            return Err(wrong("no PROXY header"));
        }
        // A line without a length: byte by byte, so that nothing of what follows is taken.
        while header.last() != Some(&b'\n') {
            if header.len() >= MAX_LINE {
                return Err(wrong("PROXY header too long"));
            }
            header.push(io.read_u8().await?);
        }
    }
    match ProxyHeader::parse(&header, ParseConfig::default()) {
        Ok((parsed, length)) if length == header.len() => Ok(parsed.proxied_address().map(|address| address.source)),
        Ok(_) | Err(_) => Err(wrong("malformed PROXY header")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(bytes: &[u8]) -> io::Result<Option<SocketAddr>> {
        let mut rest = bytes;
        let address = read(&mut rest).await?;
        assert_eq!(rest, b"\x16TLS", "nothing after the header is taken");
        Ok(address)
    }

    fn binary(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(rest);
        bytes.extend(b"\x16TLS");
        bytes
    }

    #[tokio::test]
    async fn both_versions_name_the_source() {
        let four = Some("192.0.2.7:40000".parse().unwrap());
        let six = Some("[2001:db8::7]:40000".parse().unwrap());
        assert_eq!(parse(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 8443\r\n\x16TLS").await.unwrap(), four);
        assert_eq!(parse(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 8443\r\n\x16TLS").await.unwrap(), six);
        assert_eq!(parse(b"PROXY UNKNOWN\r\n\x16TLS").await.unwrap(), None);
        let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x20, 0xfb];
        assert_eq!(parse(&binary(0x21, 0x11, 12, &addresses)).await.unwrap(), four);
        // Extensions are passed over; a check of the load balancer's own names nobody.
        let extended = [&addresses[..], &[4, 0, 3, 1, 2, 3]].concat();
        assert_eq!(parse(&binary(0x21, 0x11, 18, &extended)).await.unwrap(), four);
        assert_eq!(parse(&binary(0x20, 0x00, 0, &[])).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_header_or_too_long_is_refused() {
        let long = [b"PROXY TCP4 ", &[b'1'; 200][..], b"\r\n"].concat();
        let cases: [&[u8]; 8] = [
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0",
            b"PROXY",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 40000",
            b"PROXY TCP4 192.0.2.700 198.51.100.1 40000 8443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 8443\r\n",
            &long,
            &binary(0x21, 0x11, u16::MAX, &[0; 100]),
            &binary(0x31, 0x11, 4, &[0; 4]),
        ];
        for case in cases {
            assert!(read(&mut &*case).await.is_err(), "{case:?}");
        }
    }
}
