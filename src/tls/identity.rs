//! The name in a client's certificate.
//!
//! Invariant: one certificate has one name, or none at all; none is made up.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The common name, as certificates for NBD have it; without one, the only DNS name.
pub(super) fn name_in(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut common = certificate.subject().iter_common_name();
    match (common.next(), common.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        (Some(_), Some(_)) => None,
        (None, _) => only_dns_name(&certificate),
    }
}

fn only_dns_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut dns = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
    match (dns.next(), dns.next()) {
        (Some(name), None) => Some(name.to_owned()),
        _ => None,
    }
}
