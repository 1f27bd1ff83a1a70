//! Proof of work: targets, and sums of work in 256 bits.
//!
//! The 256-bit type comes from `k256`, which is here anyway for the compressed scripts.

use k256::U256;
use k256::elliptic_curve::bigint::NonZero;

use crate::hash::BlockHash;
use crate::network::Network;

/// Why a header's proof of work does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofOfWorkError {
    /// The compact target is negative, zero or longer than 256 bits.
    #[error("the compact target {bits:#010x} is no target")]
    InvalidTarget {
        /// The target in compact form.
        bits: u32,
    },
    /// The target is easier than the network allows.
    #[error("the compact target {bits:#010x} is easier than {network} allows ({limit_bits:#010x})")]
    TargetAboveLimit {
        /// The network.
        network: Network,
        /// The target in compact form.
        bits: u32,
        /// The network's easiest target in compact form.
        limit_bits: u32,
    },
    /// The hash is above the target.
    #[error("the hash is above the target {bits:#010x} that the header claims")]
    HashAboveTarget {
        /// The target in compact form.
        bits: u32,
    },
}

impl Network {
    /// Checks that a header with this `hash` has done the work that its compact target `bits`
    /// claims, and that the claim is within the network's limit.
    ///
    /// Whether `bits` is the difficulty that the chain demands at its height is not checked,
    /// nor signet's block signature.
    ///
    /// # Errors
    /// [`ProofOfWorkError`].
    pub fn check_proof_of_work(self, hash: &BlockHash, bits: u32) -> Result<(), ProofOfWorkError> {
        let target = target(bits).ok_or(ProofOfWorkError::InvalidTarget { bits })?;
        let limit_bits = self.pow_limit_bits();
        if Some(target) > self::target(limit_bits) {
            return Err(ProofOfWorkError::TargetAboveLimit {
                network: self,
                bits,
                limit_bits,
            });
        }
        if U256::from_le_slice(hash.as_bytes()) > target {
            return Err(ProofOfWorkError::HashAboveTarget { bits });
        }
        Ok(())
    }
}

// Compact form: one byte says how many bytes the number has, three are its highest; the top bit
// of the three is a sign.
fn target(bits: u32) -> Option<U256> {
    let length = bits >> 24;
    let high = U256::from_u32(bits & 0x007f_ffff);
    if bits & 0x0080_0000 != 0 {
        return None;
    }
    let target = if length <= 3 {
        high.shr_vartime(usize::try_from(8 * (3 - length)).ok()?)
    } else {
        let shift = usize::try_from(8 * (length - 3)).ok()?;
        if high.bits_vartime() + shift > U256::BITS {
            return None;
        }
        high.shl_vartime(shift)
    };
    (target != U256::ZERO).then_some(target)
}

/// The number of hashes that meeting the target takes on average, 2^256 / (target + 1); zero
/// where `bits` is no target.
pub(crate) fn work(bits: u32) -> U256 {
    target(bits)
        .and_then(|target| {
            let divisor =
                Option::<NonZero<_>>::from(NonZero::new(target.wrapping_add(&U256::ONE)))?;
            // 2^256 does not fit; this is the same number.
            Some((!target).wrapping_div(&divisor).wrapping_add(&U256::ONE))
        })
        .unwrap_or(U256::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_targets_read_as_core_reads_them() {
        let shown = |bits| target(bits).map(|target| target.to_string().to_lowercase());
        let zeros = |count| "0".repeat(count);
        // Bitcoin Core's unit tests of arith_uint256::SetCompact.
        for none in [
            0,
            0x0012_3456,
            0x0100_3456,
            0x0200_0056,
            0x0300_0000,
            0x0400_0000,
            0x0092_3456,
            0x0180_3456,
            0x0280_0056,
            0x0380_0000,
            0x0480_0000,
            0x01fe_dcba,
            0x0492_3456,
            0xff12_3456,
            0x2101_0000,
            0x2200_0100,
            0x2300_0001,
        ] {
            assert_eq!(shown(none), None, "{none:#010x}");
        }
        for (bits, text) in [
            (0x0112_3456, zeros(62) + "12"),
            (0x0200_8000, zeros(62) + "80"),
            (0x0212_3456, zeros(60) + "1234"),
            (0x0312_3456, zeros(58) + "123456"),
            (0x0412_3456, zeros(56) + "12345600"),
            (0x0500_9234, zeros(56) + "92340000"),
            (0x2012_3456, "123456".to_owned() + &zeros(58)),
            (0x2100_ffff, "ffff".to_owned() + &zeros(60)),
            (0x2200_00ff, "ff".to_owned() + &zeros(62)),
        ] {
            assert_eq!(shown(bits), Some(text), "{bits:#010x}");
        }
    }

    #[test]
    fn work_of_the_first_blocks() {
        assert_eq!(work(0x1d00_ffff), U256::from_u64(0x1_0001_0001));
        assert_eq!(work(0x207f_ffff), U256::from_u64(2));
        assert_eq!(work(0), U256::ZERO);
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        for network in Network::ALL {
            let bits = network.pow_limit_bits();
            assert_eq!(network.check_proof_of_work(&BlockHash::ZERO, bits), Ok(()));
            assert!(matches!(
                network.check_proof_of_work(&BlockHash::ZERO, bits + 1),
                Err(ProofOfWorkError::TargetAboveLimit { .. }
                    | ProofOfWorkError::InvalidTarget { .. })
            ));
            let highest = BlockHash::from_bytes([0xff; 32]);
            assert_eq!(
                network.check_proof_of_work(&highest, bits),
                Err(ProofOfWorkError::HashAboveTarget { bits })
            );
        }
    }
}
