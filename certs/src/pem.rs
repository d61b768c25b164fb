//! Certificates as text, for programs that read files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;

/// Characters of a line, as every reader of PEM takes them.
const LINE: usize = 64;

/// A chain, in its order.
pub fn of_chain(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(of_certificate).collect()
}

fn of_certificate(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, char) in STANDARD.encode(certificate).chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(char);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_chain_reads_back() {
        let made = || rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let chain = [made().cert.der().clone(), made().cert.der().clone()];
        let text = of_chain(&chain);
        assert!(text.lines().all(|line| line.len() <= LINE));
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(read, chain);
    }
}
