//! The LLDP data unit (IEEE 802.1AB-2016 8), with the TLVs of Auto Attach in the form of the organization 00-04-0d
//! (draft-unbehagen-lldp-spb).
//!
//! ```text
//!   type 7 bits | length 9 bits | information, at most 511 bytes
//!   chassis (1), port (2), time to live (3): first, in this order, once each; then others; then the end (0)
//! ```

/// Ethernet type of LLDP (IEEE 802.1AB 7.4).
pub const ETH_TYPE: u16 = 0x88cc;
/// Where it is sent: the nearest bridge (IEEE 802.1AB table 7-1).
pub const ETH_DST: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// Most assignments of a unit: what its TLV has room for.
pub const MAX_MAPPINGS: usize = (MAX_INFORMATION - ASSIGNMENTS_BYTES) / MAPPING_BYTES;

/// Most bytes of a TLV's information (IEEE 802.1AB 8.4.2).
const MAX_INFORMATION: usize = 511;
/// Most bytes of an identifier or a text (IEEE 802.1AB 8.5.2, 8.5.5).
const MAX_TEXT: usize = 255;
const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const SYSTEM_DESCRIPTION: u8 = 6;
const CAPABILITIES: u8 = 7;
const MANAGEMENT: u8 = 8;
const ORGANIZATION: u8 = 127;
/// The organization that Auto Attach's TLVs are of.
const AUTO_ATTACH: [u8; 3] = [0x00, 0x04, 0x0d];
/// Its subtypes.
const ELEMENT: u8 = 0x0b;
const ASSIGNMENTS: u8 = 0x0c;
/// Its TLVs begin with a digest, which nobody who has no key can check; all zero where there is none.
const DIGEST_BYTES: usize = 32;
/// Information of an element: organization, subtype, digest, 4 bytes of what it is, and its system.
const ELEMENT_BYTES: usize = 4 + DIGEST_BYTES + 4 + 10;
/// Information of assignments before the first.
const ASSIGNMENTS_BYTES: usize = 4 + DIGEST_BYTES;
/// Status, VLAN and service identifier.
const MAPPING_BYTES: usize = 5;
/// It is a bridge (IEEE 802.1AB table 8-4).
const BRIDGE: u16 = 1 << 2;
/// Least frame without its check sequence (IEEE 802.3 4.2.3.3).
const MIN_FRAME: usize = 60;

/// What names a chassis or a port: its subtype (IEEE 802.1AB tables 8-2 and 8-3) and 1 to 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id {
    /// How the bytes are to be read.
    pub subtype: u8,
    /// What they are.
    pub bytes: Vec<u8>,
}

impl Id {
    /// A chassis by an Ethernet address.
    pub fn of_chassis(mac: [u8; 6]) -> Id {
        Id { subtype: 4, bytes: mac.to_vec() }
    }

    /// A port by its interface's name, of which 255 bytes count.
    pub fn of_interface(name: &str) -> Id {
        Id { subtype: 5, bytes: cut(name.as_bytes()).to_vec() }
    }
}

/// What an element of Auto Attach says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Element {
    /// What it is: 14 is a virtual switch, 2 to 5 are servers and proxies.
    pub kind: u8,
    /// Its traffic on this link has tags.
    pub tagged: bool,
    /// How it is provisioned, 2 bits.
    pub provisioning: u8,
    /// VLAN that it is managed in; 0 is none.
    pub management_vlan: u16,
    /// Which it is: an address, and how it is connected.
    pub system: [u8; 10],
}

impl Element {
    /// A virtual switch on a single link.
    pub fn of_switch(mac: [u8; 6]) -> Element {
        let mut system = [0; 10];
        system[..6].copy_from_slice(&mac);
        Element { kind: 14, system, ..Element::default() }
    }
}

/// A service that is asked for in a VLAN, or what has become of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Identifier of the service (IEEE 802.1ah), 24 bits.
    pub isid: u32,
    /// The VLAN, 12 bits.
    pub vlan: u16,
    /// 0 asks for it; what answers say is in [`super::Status`].
    pub status: u8,
}

/// A unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Who sends it.
    pub chassis: Id,
    /// By which port.
    pub port: Id,
    /// For how many seconds it holds; 0 takes back what was said.
    pub ttl_s: u16,
    /// What the port is.
    pub port_description: Vec<u8>,
    /// Name of the system; empty is none.
    pub system_name: Vec<u8>,
    /// What the system is; empty is none.
    pub system_description: Vec<u8>,
    /// What it says of itself as an element of Auto Attach.
    pub element: Option<Element>,
    /// Services in VLANs; at most [`MAX_MAPPINGS`].
    pub mappings: Vec<Mapping>,
    /// So many TLVs were not recognized.
    pub unrecognized: u32,
}

/// Why a frame is no unit: what is wrong with it, without where it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// It is no frame of LLDP, or is for somebody else.
    #[error("frame that is not for the nearest bridge")]
    Frame,
    /// A TLV says that it is longer than what is left.
    #[error("frame too short for its TLVs")]
    Truncated,
    /// What every unit begins with is missing, out of order, or there again.
    #[error("mandatory TLVs missing or out of order")]
    Order,
    /// An identifier of no bytes, of too many, or of a subtype that there is not.
    #[error("bad chassis or port ID")]
    Id,
    /// A TLV is shorter than what must be in it.
    #[error("{0} TLV too short")]
    Short(&'static str),
    /// The end has something in it.
    #[error("end TLV that is not empty")]
    End,
    /// Assignments that are cut off in the middle of one.
    #[error("malformed ISID_VLAN_ASGNS TLV")]
    Assignments,
}

/// The first bytes of a text that there is room for.
fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_TEXT)]
}

fn identifier(information: &[u8]) -> Result<Id, Malformed> {
    match information {
        [subtype @ 1..=7, bytes @ ..] if !bytes.is_empty() && bytes.len() <= MAX_TEXT => {
            Ok(Id { subtype: *subtype, bytes: bytes.to_vec() })
        }
        _ => Err(Malformed::Id),
    }
}

impl Unit {
    /// Reads one. TLVs that are not known are passed over (IEEE 802.1AB 9.2.7.7.1), and of others that come twice the last counts.
    ///
    /// # Errors
    /// Whatever [`Malformed`] says.
    pub fn read(frame: &[u8]) -> Result<Unit, Malformed> {
        let of_lldp = frame.get(12..14) == Some(&ETH_TYPE.to_be_bytes()[..]);
        let (true, true) = (of_lldp, frame.starts_with(&ETH_DST)) else { return Err(Malformed::Frame) };
        let mut rest = &frame[14..];
        let mut next = |wanted: Option<u8>| {
            let Some((head, more)) = rest.split_first_chunk::<2>() else {
                // The end may be left out.
                return if rest.is_empty() && wanted.is_none() {
                    Ok(None)
                } else {
                    Err(Malformed::Truncated)
                };
            };
            let head = u16::from_be_bytes(*head);
            let (kind, length) = ((head >> 9) as u8, usize::from(head & 0x1ff));
            let (information, after) = more.split_at_checked(length).ok_or(Malformed::Truncated)?;
            rest = after;
            match wanted {
                Some(w) if w != kind => Err(Malformed::Order),
                _ => Ok(Some((kind, information))),
            }
        };
        let mut mandatory = |kind| next(Some(kind)).map(|t| t.map_or(&[][..], |(_, i)| i));
        let chassis = identifier(mandatory(CHASSIS)?)?;
        let port = identifier(mandatory(PORT)?)?;
        let ttl = mandatory(TTL)?.first_chunk::<2>().ok_or(Malformed::Short("TTL"))?;
        let mut unit = Unit {
            chassis,
            port,
            ttl_s: u16::from_be_bytes(*ttl),
            port_description: Vec::new(),
            system_name: Vec::new(),
            system_description: Vec::new(),
            element: None,
            mappings: Vec::new(),
            unrecognized: 0,
        };
        while let Some((kind, information)) = next(None)? {
            match kind {
                END if information.is_empty() => break,
                END => return Err(Malformed::End),
                CHASSIS | PORT | TTL => return Err(Malformed::Order),
                PORT_DESCRIPTION => unit.port_description = information.to_vec(),
                SYSTEM_NAME => unit.system_name = information.to_vec(),
                SYSTEM_DESCRIPTION => unit.system_description = information.to_vec(),
                CAPABILITIES if information.len() < 4 => return Err(Malformed::Short("System capabilities")),
                CAPABILITIES => {}
                MANAGEMENT => check_management(information)?,
                ORGANIZATION => unit.take_organizations(information)?,
                _ => unit.unrecognized += 1,
            }
        }
        Ok(unit)
    }

    /// What an organization has defined.
    fn take_organizations(&mut self, information: &[u8]) -> Result<(), Malformed> {
        let Some((&[a, b, c, subtype], body)) = information.split_first_chunk::<4>() else {
            return Err(Malformed::Short("Organisational"));
        };
        match subtype {
            ELEMENT if [a, b, c] == AUTO_ATTACH => {
                let e: &[u8; ELEMENT_BYTES] = information.first_chunk().ok_or(Malformed::Short("ELEMENT"))?;
                let at = 4 + DIGEST_BYTES;
                let word = u32::from_be_bytes([e[at], e[at + 1], e[at + 2], e[at + 3]]);
                let mut system = [0; 10];
                system.copy_from_slice(&e[at + 4..]);
                self.element = Some(Element {
                    kind: (word >> 26) as u8,
                    tagged: word >> 25 & 1 != 0,
                    provisioning: (word >> 23 & 3) as u8,
                    management_vlan: (word >> 8 & 0xfff) as u16,
                    system,
                });
            }
            ASSIGNMENTS if [a, b, c] == AUTO_ATTACH => {
                let list = body.get(DIGEST_BYTES..).ok_or(Malformed::Short("ISID_VLAN_ASGNS"))?;
                let (all, left) = list.as_chunks::<MAPPING_BYTES>();
                if !left.is_empty() {
                    return Err(Malformed::Assignments);
                }
                let one = |m: &[u8; MAPPING_BYTES]| Mapping {
                    status: m[0] >> 4,
                    vlan: u16::from_be_bytes([m[0], m[1]]) & 0xfff,
                    isid: u32::from_be_bytes([0, m[2], m[3], m[4]]),
                };
                // One unit has room for several such TLVs.
                let room = MAX_MAPPINGS.saturating_sub(self.mappings.len());
                self.mappings.extend(all.iter().take(room).map(one));
            }
            _ => self.unrecognized += 1,
        }
        Ok(())
    }

    /// The frame that carries it from `src`.
    pub fn frame(&self, src: [u8; 6]) -> Vec<u8> {
        let mut f = ETH_DST.to_vec();
        f.extend(src);
        f.extend(ETH_TYPE.to_be_bytes());
        for (kind, id) in [(CHASSIS, &self.chassis), (PORT, &self.port)] {
            put(&mut f, kind, &[&[id.subtype], cut(&id.bytes)]);
        }
        put(&mut f, TTL, &[&self.ttl_s.to_be_bytes()]);
        let texts = [
            (PORT_DESCRIPTION, &self.port_description),
            (SYSTEM_NAME, &self.system_name),
            (SYSTEM_DESCRIPTION, &self.system_description),
        ];
        for (kind, text) in texts.into_iter().filter(|(_, t)| !t.is_empty()) {
            put(&mut f, kind, &[cut(text)]);
        }
        // It can bridge, and does.
        put(&mut f, CAPABILITIES, &[&BRIDGE.to_be_bytes(), &BRIDGE.to_be_bytes()]);
        let digest = [0; DIGEST_BYTES];
        if let Some(e) = &self.element {
            let word = u32::from(e.kind & 0x3f) << 26
                | u32::from(e.tagged) << 25
                | u32::from(e.provisioning & 3) << 23
                | u32::from(e.management_vlan & 0xfff) << 8;
            let parts: [&[u8]; 5] = [&AUTO_ATTACH, &[ELEMENT], &digest, &word.to_be_bytes(), &e.system];
            put(&mut f, ORGANIZATION, &parts);
        }
        if !self.mappings.is_empty() {
            let all: Vec<u8> = self.mappings.iter().take(MAX_MAPPINGS).flat_map(mapping).collect();
            put(&mut f, ORGANIZATION, &[&AUTO_ATTACH, &[ASSIGNMENTS], &digest, &all]);
        }
        put(&mut f, END, &[]);
        f.resize(f.len().max(MIN_FRAME), 0);
        f
    }
}

/// An address at which the sender is managed is of no use here, but must be well-formed (IEEE 802.1AB 8.5.9).
fn check_management(information: &[u8]) -> Result<(), Malformed> {
    let least = information.first().map_or(1, |n| 1 + usize::from(*n) + 6);
    if information.len() < least { Err(Malformed::Short("Management address")) } else { Ok(()) }
}

fn mapping(m: &Mapping) -> [u8; MAPPING_BYTES] {
    let [high, low] = (u16::from(m.status & 0xf) << 12 | m.vlan & 0xfff).to_be_bytes();
    let [_, a, b, c] = m.isid.to_be_bytes();
    [high, low, a, b, c]
}

/// A TLV whose information is `parts`, of 511 bytes at most.
fn put(f: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    debug_assert!(length <= MAX_INFORMATION);
    f.extend((u16::from(kind) << 9 | length as u16).to_be_bytes());
    parts.iter().for_each(|p| f.extend(*p));
}
