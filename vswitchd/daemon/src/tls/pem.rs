//! Certificates as PEM text (RFC 7468), the writing half.

/// A certificate's DER as PEM.
pub(super) fn certificate(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes are a line of 64 characters.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut bits = [0; 3];
            bits[..group.len()].copy_from_slice(group);
            let n = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
            for i in 0..4 {
                if i <= group.len() {
                    text.push(char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]));
                } else {
                    text.push('=');
                }
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn what_is_written_reads_back_whatever_its_length() {
        for n in [0, 1, 2, 3, 47, 48, 49, 1000] {
            let der: Vec<u8> = (0..n).map(|i| (i * 7) as u8).collect();
            let text = super::certificate(&der);
            assert!(text.lines().all(|l| l.len() <= 64), "{text}");
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }
}
