//! Certificates of clients: whose authority counts, and what name one gives.
//!
//! Only a certificate that says that it is for clients is one: the authority may sign servers too. Nothing here knows what a name means.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::tls::{TlsError, provider, unreadable};
use super::{ClientCertificates, ClientUser};

/// The longest name of a client.
const NAME_MAX: usize = 512;

/// What judges the certificates of clients; reads the authorities. Blocks on the disk.
pub(super) fn verifier(told: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(authorities(&told.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()));
    let builder = if told.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let inner = builder.build().map_err(|error| TlsError::File {
        file: told.ca.clone(),
        cause: error.to_string(),
    })?;
    Ok(Arc::new(ForClients(inner)))
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let nothing = "no certificate in it";
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error, nothing))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable(file, &error, nothing))?;
        roots.add(certificate).map_err(|error| TlsError::File {
            file: file.to_owned(),
            cause: error.to_string(),
        })?;
    }
    if roots.is_empty() {
        return Err(TlsError::File {
            file: file.to_owned(),
            cause: nothing.to_owned(),
        });
    }
    Ok(roots)
}

/// The name in a certificate that was verified: exactly one common name, or the first alternative name of the kind.
pub(super) fn name(certificate: &CertificateDer<'_>, user: ClientUser) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let found = if user == ClientUser::CommonName {
        let mut names = certificate.subject().iter_common_name();
        let (name, None) = (names.next()?, names.next()) else {
            return None;
        };
        name.as_str().ok()?
    } else {
        let names = certificate.subject_alternative_name().ok()??;
        let mut names = names.value.general_names.iter();
        names.find_map(|name| match (user, name) {
            (ClientUser::Dns, GeneralName::DNSName(name))
            | (ClientUser::Email, GeneralName::RFC822Name(name))
            | (ClientUser::Uri, GeneralName::URI(name)) => Some(*name),
            _ => None,
        })?
    };
    (!found.is_empty() && found.len() <= NAME_MAX).then(|| found.into())
}

/// As the library judges, and besides: without a word on what it is for a certificate is none for clients.
#[derive(Debug)]
struct ForClients(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ForClients {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(certificate, chain, now)?;
        let parsed = X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|_any| CertificateError::BadEncoding)?;
        match parsed.extended_key_usage() {
            Ok(Some(usage)) if usage.value.client_auth => Ok(verified),
            _ => Err(CertificateError::InvalidPurpose.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
