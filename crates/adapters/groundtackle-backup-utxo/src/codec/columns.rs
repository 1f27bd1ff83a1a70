//! Columns: numbers by planes of bytes, and bytes as they are.

use std::fmt;

use zstd::bulk::Compressor;

use super::CodecError;

const PLAIN: u8 = 0;
const SAME: u8 = 1;
const ZSTD: u8 = 2;

/// The fastest of zstd's usual levels; higher ones gain less than a hundredth on these columns.
const LEVEL: i32 = 1;

/// Below this a frame of zstd is not worth a try: its header takes a dozen bytes.
const MIN_PACKED_BYTES: usize = 64;

/// Compresses what shrinks. Its tables are made once, when they are first needed.
#[derive(Default)]
pub(crate) struct Packer {
    compressor: Option<Compressor<'static>>,
    plane: Vec<u8>,
    packed: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// Packs the plane into `packed`; whether that is shorter.
    fn pack(&mut self) -> bool {
        if self.plane.len() < MIN_PACKED_BYTES {
            return false;
        }
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
        }
        let Some(compressor) = &mut self.compressor else {
            return false;
        };
        // Written over, up to its capacity: what does not fit does not shrink.
        self.packed.clear();
        self.packed.reserve(self.plane.len());
        compressor
            .compress_to_buffer(&self.plane, &mut self.packed)
            .is_ok_and(|length| length.saturating_add(4) < self.plane.len())
    }
}

/// Numbers, as many as the reader expects: how many bytes the largest has, then a plane for each of these, lowest
/// first, with that byte of every number.
pub(crate) fn write_numbers(out: &mut Vec<u8>, numbers: &[u64], packer: &mut Packer) {
    let all = numbers.iter().fold(0, |all, number| all | number);
    let planes = u64::BITS.saturating_sub(all.leading_zeros()).div_ceil(8);
    // At most eight.
    out.push(planes as u8);
    for plane in 0..planes {
        packer.plane.clear();
        packer
            .plane
            .extend(numbers.iter().map(|number| (number >> (8 * plane)) as u8));
        write_plane(out, packer);
    }
}

fn write_plane(out: &mut Vec<u8>, packer: &mut Packer) {
    let Some(first) = packer.plane.first().copied() else {
        return;
    };
    if packer.plane.iter().all(|byte| *byte == first) {
        out.extend_from_slice(&[SAME, first]);
    } else if packer.pack() {
        out.push(ZSTD);
        // Shorter than a plane, which has a byte for each coin at most.
        out.extend_from_slice(&(packer.packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&packer.packed);
    } else {
        out.push(PLAIN);
        out.extend_from_slice(&packer.plane);
    }
}

/// Reads a segment's columns.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    rest: &'a [u8],
}

impl<'a> Columns<'a> {
    /// After the segment's kind and version.
    pub(crate) fn begin(segment: &'a [u8], kind: u8, version: u8) -> Result<Self, CodecError> {
        let mut columns = Self { rest: segment };
        let what = "its header";
        let [found_kind, found] = columns.array(what)?;
        if found_kind != kind {
            return Err(CodecError::invalid(
                what,
                format!("it is of kind {found_kind}, not {kind}"),
            ));
        }
        if found > version {
            return Err(CodecError::NewerFormat {
                found,
                supported: version,
            });
        }
        if found < 1 {
            return Err(CodecError::invalid(what, "there is no format 0"));
        }
        Ok(columns)
    }

    pub(crate) const fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(CodecError::Trailing { bytes }),
        }
    }

    pub(crate) fn bytes(&mut self, what: &'static str, count: u64) -> Result<&'a [u8], CodecError> {
        let (bytes, rest) = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count))
            .ok_or(CodecError::Truncated { what })?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(CodecError::Truncated { what })?;
        self.rest = rest;
        Ok(*array)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        self.array(what).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn hashes(
        &mut self,
        what: &'static str,
        count: usize,
    ) -> Result<&'a [[u8; 32]], CodecError> {
        let bytes = self.bytes(what, (count as u64).saturating_mul(32))?;
        Ok(bytes.as_chunks().0)
    }

    /// Numbers, `count` of them; the caller has bounded that.
    pub(crate) fn numbers(
        &mut self,
        what: &'static str,
        count: usize,
    ) -> Result<Vec<u64>, CodecError> {
        let planes = self.u8(what)?;
        if u32::from(planes) > u64::BITS / 8 {
            let detail = format!("numbers of {planes} bytes");
            return Err(CodecError::invalid(what, detail));
        }
        let mut numbers = vec![0; count];
        if count == 0 {
            return Ok(numbers);
        }
        let mut unpacked = Vec::new();
        for plane in 0..planes {
            let shift = 8 * u32::from(plane);
            let bytes = match self.u8(what)? {
                PLAIN => self.bytes(what, count as u64)?,
                SAME => {
                    let bits = u64::from(self.u8(what)?) << shift;
                    numbers.iter_mut().for_each(|number| *number |= bits);
                    continue;
                }
                ZSTD => {
                    let length = self.u32(what)?;
                    let packed = self.bytes(what, length.into())?;
                    unpack(what, packed, count, &mut unpacked)?;
                    &unpacked
                }
                other => {
                    let detail = format!("there is no coding {other} of a plane");
                    return Err(CodecError::invalid(what, detail));
                }
            };
            for (number, byte) in numbers.iter_mut().zip(bytes) {
                *number |= u64::from(*byte) << shift;
            }
        }
        Ok(numbers)
    }
}

/// Unpacks exactly `count` bytes, whatever the frame says of itself.
fn unpack(
    what: &'static str,
    packed: &[u8],
    count: usize,
    unpacked: &mut Vec<u8>,
) -> Result<(), CodecError> {
    unpacked.resize(count, 0);
    let length = zstd::bulk::decompress_to_buffer(packed, unpacked)
        .map_err(|error| CodecError::invalid(what, error.to_string()))?;
    if length != count {
        let detail = format!("{length} bytes were packed, and {count} are needed");
        return Err(CodecError::invalid(what, detail));
    }
    Ok(())
}
