//! The archive around what is signed, and the checks of a bundle.

use thiserror::Error;
use tunnel::PublicKey;

use super::archive::{self, ArchiveError, ArchiveMember};
use super::signature::{KeyId, Signature};
use super::{Bundle, ContentsError, MAX_BUNDLE_BYTES, Manifest, SigningKeys};

/// Name of the signed archive.
const BUNDLE_TAR: &str = "bundle.tar";
/// Ending of a file with the signature of the file before it.
const MINISIG: &str = ".minisig";

/// What a box requires of a bundle that reaches it.
#[derive(Clone, Copy, Debug)]
pub struct VerifyPolicy<'a> {
    /// Keys that it trusts: of its last bundle or its image. None if it has had no bundle: then
    /// the keys of this bundle become the trusted ones, if it came by hand.
    pub keys: Option<&'a SigningKeys>,
    /// Its `gateway.id`; none if no bundle has named it yet.
    pub gateway: Option<&'a str>,
    /// Public key of its tunnel; none if it is not known here. A bundle that names no key is for
    /// any box that has no id yet.
    pub tunnel_public_key: Option<PublicKey>,
    /// Largest counter of all bundles that it has accepted, tried or rolled back.
    pub last_counter: Option<u64>,
    /// How the bundle came.
    pub source: BundleSource,
}

/// How a bundle reaches a box.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BundleSource {
    /// A person brought it, on a stick.
    ByHand,
    /// The box fetched it from a web server, which may keep copies.
    Pulled,
}

/// Why a bundle is refused. Nothing is changed then.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BundleError {
    /// It is longer than a bundle may be.
    #[error(
        "the bundle has {bytes} bytes, and at most {MAX_BUNDLE_BYTES} are read: ask the office \
             for a new one"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// It is not a bundle, or it was cut or changed on its way.
    #[error("the bundle is damaged: {0}; copy it again")]
    Damaged(#[from] ArchiveError),
    /// The archive around what is signed has other files.
    #[error("the bundle is damaged: `{name}` has no place in it; copy it again")]
    Misplaced {
        /// Name of the file.
        name: String,
    },
    /// The archive around what is signed lacks a file.
    #[error("the bundle is damaged: `{name}` is missing; copy it again")]
    Missing {
        /// Name of the file.
        name: String,
    },
    /// A signature or a list of keys is not in its form.
    #[error("the bundle is damaged: `{name}` is not as `edge-provision` writes it; copy it again")]
    Malformed {
        /// Name of the file.
        name: String,
    },
    /// A key that is not trusted has signed.
    #[error(
        "`{name}` is signed by key {signer}, and this box trusts {trusted}: ask the office for \
             a bundle that is signed by a key of this fleet"
    )]
    ForeignSigner {
        /// Name of the file that is signed.
        name: String,
        /// The key that signed.
        signer: KeyId,
        /// The keys that are trusted.
        trusted: String,
    },
    /// A signature does not belong to what it signs.
    #[error(
        "the signature of `{name}` is wrong: the bundle was changed after it was signed; \
             copy it again, or ask the office for a new one"
    )]
    WrongSignature {
        /// Name of the file that is signed.
        name: String,
    },
    /// The bundle was made before the signing keys were replaced.
    #[error(
        "the bundle was made before the signing keys were replaced: it ends with list {last}, \
             and this box trusts list {trusted}; ask the office for a new one"
    )]
    KeysTooOld {
        /// Number of the trusted list.
        trusted: u32,
        /// Number of the last list of the bundle.
        last: u32,
    },
    /// The office has signed something that cannot be used.
    #[error("the bundle is signed, but cannot be used: {0}; tell the office")]
    Contents(#[from] ContentsError),
    /// It is for another gateway.
    #[error(
        "the bundle is for the gateway `{bundle}`, and this one is `{own}`: load the bundle of \
             `{own}`"
    )]
    OtherGateway {
        /// The gateway that it is for.
        bundle: String,
        /// This gateway.
        own: String,
    },
    /// It is for another box.
    #[error(
        "the bundle of `{gateway}` is for the box with the tunnel key {bundle}, and this box \
             has {own}: send the office the enrolment file of this box"
    )]
    OtherBox {
        /// The gateway that it is for.
        gateway: String,
        /// Key of the box that it is for.
        bundle: PublicKey,
        /// Key of this box.
        own: PublicKey,
    },
    /// It is the one that the box has, or had.
    #[error("the bundle has counter {counter}, which this box has had already: nothing to do")]
    SameCounter {
        /// Its counter.
        counter: u64,
    },
    /// It is older than the last one.
    #[error(
        "the bundle has counter {counter}, which is older than {last}, the last of this box: \
             ask the office for the newest one"
    )]
    OlderCounter {
        /// Its counter.
        counter: u64,
        /// Largest counter of the box.
        last: u64,
    },
    /// The first bundle came from a web server.
    #[error(
        "the bundle was fetched, and this box trusts no signing keys yet: bring its first bundle \
             by hand"
    )]
    NoTrustedKeys,
    /// Secrets in clear came from a web server.
    #[error(
        "the bundle was fetched and contains secrets in clear, which others may have read: \
             replace those secrets, and enrol this box so that they can be encrypted"
    )]
    ClearSecrets,
}

/// A bundle that the box may use.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    /// What it tells the box.
    pub bundle: Bundle<'a>,
    /// The keys to trust from now on.
    pub keys: SigningKeys,
}

/// Checks a bundle: its size, its form, the lists of keys, the signature, then what is signed, and
/// whether it is for this box and newer than its last one. Reads only `bytes`, and writes nothing.
///
/// # Errors
/// When one of the checks fails; the error says what to do.
pub fn verify<'a>(bytes: &'a [u8], policy: &VerifyPolicy<'_>) -> Result<Verified<'a>, BundleError> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge { bytes: bytes.len() });
    }
    // Every server on the way could answer with a bundle of its own.
    if policy.keys.is_none() && policy.source == BundleSource::Pulled {
        return Err(BundleError::NoTrustedKeys);
    }
    let envelope = Envelope::read(bytes)?;
    let keys = envelope.newest_keys(policy.keys)?;
    envelope.bundle.verify(&keys)?;
    let bundle = Bundle::read(envelope.bundle.content)?;
    policy.check(&bundle)?;
    Ok(Verified { bundle, keys })
}

/// Returns a bundle: what is signed, its signature, and all lists of keys that the fleet has had,
/// with theirs. A box may still trust the first one.
///
/// # Errors
/// When there are too many lists.
pub fn seal(
    lists: &[(SigningKeys, Signature)],
    bundle: &[u8],
    signature: &Signature,
) -> Result<Vec<u8>, ArchiveError> {
    let mut files = Vec::new();
    for (keys, signature) in lists {
        let name = list_name(keys.number());
        files.push((name.clone(), keys.to_string().into_bytes()));
        files.push((name + MINISIG, signature.to_string().into_bytes()));
    }
    files.push((BUNDLE_TAR.to_owned(), bundle.to_vec()));
    files.push((BUNDLE_TAR.to_owned() + MINISIG, signature.to_string().into_bytes()));
    let members: Vec<ArchiveMember<'_>> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    archive::render(&members)
}

fn list_name(number: u32) -> String {
    format!("keys-{number}.txt")
}

/// A file and its signature.
struct Signed<'a> {
    name: &'a str,
    content: &'a [u8],
    signature: Signature,
}

struct Envelope<'a> {
    /// With the numbers 1, 2 and so on.
    lists: Vec<(SigningKeys, Signed<'a>)>,
    bundle: Signed<'a>,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let members = archive::read(bytes)?;
        let mut pairs = members.chunks(2).map(Signed::read).collect::<Result<Vec<_>, _>>()?;
        let is_bundle = |signed: &Signed<'_>| signed.name == BUNDLE_TAR;
        let bundle = pairs.pop().filter(is_bundle);
        let bundle = bundle.ok_or_else(|| BundleError::Missing { name: BUNDLE_TAR.to_owned() })?;
        let lists = pairs.into_iter().map(Signed::into_list).collect::<Result<Vec<_>, _>>()?;
        for (number, (keys, signed)) in (1..).zip(&lists) {
            if keys.number() != number {
                return Err(BundleError::Misplaced { name: signed.name.to_owned() });
            }
        }
        Ok(Self { lists, bundle })
    }

    /// Returns the last list of keys of the bundle. Each list must be signed by a key of the list
    /// before it, the first one by its own, and the trusted list must be among them.
    fn newest_keys(&self, trusted: Option<&SigningKeys>) -> Result<SigningKeys, BundleError> {
        let missing = || BundleError::Missing { name: list_name(1) };
        let (first, _) = self.lists.first().ok_or_else(missing)?;
        let mut last = first;
        for (keys, signed) in &self.lists {
            signed.verify(last)?;
            last = keys;
        }
        let Some(trusted) = trusted else { return Ok(last.clone()) };
        let same = self.lists.iter().find(|(keys, _)| keys.number() == trusted.number());
        match same {
            Some((keys, _)) if keys == trusted => Ok(last.clone()),
            Some((_, signed)) => Err(BundleError::ForeignSigner {
                name: signed.name.to_owned(),
                signer: signed.signature.key(),
                trusted: trusted.ids(),
            }),
            None => Err(BundleError::KeysTooOld { trusted: trusted.number(), last: last.number() }),
        }
    }
}

impl<'a> Signed<'a> {
    /// Reads a file and the signature that follows it.
    fn read(pair: &[ArchiveMember<'a>]) -> Result<Self, BundleError> {
        let Some((name, content)) = pair.first().copied() else {
            return Err(BundleError::Missing { name: BUNDLE_TAR.to_owned() });
        };
        let signature_name = name.to_owned() + MINISIG;
        match pair.get(1) {
            Some((other, bytes)) if *other == signature_name => match Signature::read(bytes) {
                Some(signature) => Ok(Self { name, content, signature }),
                None => Err(BundleError::Malformed { name: signature_name }),
            },
            Some((other, _)) => Err(BundleError::Misplaced { name: (*other).to_owned() }),
            None => Err(BundleError::Missing { name: signature_name }),
        }
    }

    fn into_list(self) -> Result<(SigningKeys, Self), BundleError> {
        let name = || self.name.to_owned();
        if !self.name.starts_with("keys-") {
            return Err(BundleError::Misplaced { name: name() });
        }
        let text = str::from_utf8(self.content).ok();
        let keys = text.and_then(|text| text.parse::<SigningKeys>().ok());
        let keys = keys.ok_or_else(|| BundleError::Malformed { name: name() })?;
        if self.name != list_name(keys.number()) {
            return Err(BundleError::Misplaced { name: name() });
        }
        Ok((keys, self))
    }

    fn verify(&self, keys: &SigningKeys) -> Result<(), BundleError> {
        let name = self.name.to_owned();
        let signer = self.signature.key();
        let Some(key) = keys.find(signer) else {
            return Err(BundleError::ForeignSigner { name, signer, trusted: keys.ids() });
        };
        let has_signed = key.has_signed(self.content, &self.signature);
        if has_signed { Ok(()) } else { Err(BundleError::WrongSignature { name }) }
    }
}

impl VerifyPolicy<'_> {
    fn check(&self, bundle: &Bundle<'_>) -> Result<(), BundleError> {
        let Manifest { gateway, counter, tunnel_public_key, .. } = bundle.manifest();
        if let Some(own) = self.gateway
            && own != gateway
        {
            let (bundle, own) = (gateway.clone(), own.to_owned());
            return Err(BundleError::OtherGateway { bundle, own });
        }
        if let (Some(own), Some(bundle)) = (self.tunnel_public_key, *tunnel_public_key)
            && own != bundle
        {
            return Err(BundleError::OtherBox { gateway: gateway.clone(), bundle, own });
        }
        let counter = *counter;
        match self.last_counter {
            Some(last) if counter == last => return Err(BundleError::SameCounter { counter }),
            Some(last) if counter < last => {
                return Err(BundleError::OlderCounter { counter, last });
            }
            _ => {}
        }
        match self.source {
            BundleSource::Pulled if bundle.has_clear_secrets() => Err(BundleError::ClearSecrets),
            BundleSource::Pulled | BundleSource::ByHand => Ok(()),
        }
    }
}
