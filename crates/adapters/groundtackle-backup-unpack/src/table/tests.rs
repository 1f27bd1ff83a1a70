use super::*;

fn coin(number: u32) -> Coin {
    let mut txid = [0; 32];
    txid[..4].copy_from_slice(&(number / 5).wrapping_mul(0x9e37_79b9).to_be_bytes());
    Coin {
        txid,
        vout: number % 5 * 100,
        height: number,
        coinbase: number.is_multiple_of(2),
        value_sat: u64::from(number),
        script: vec![number as u8; number as usize % 7],
    }
}

fn written(coins: &[Coin], memory_bytes: usize) -> (String, u64) {
    let mut table = Table::new(std::env::temp_dir(), memory_bytes);
    for coin in coins {
        table.push(coin).unwrap();
    }
    let mut text = Vec::new();
    let twice = table.write(&mut text).unwrap();
    (String::from_utf8(text).unwrap(), twice)
}

#[test]
fn lines_are_sorted_whatever_fits_in_memory() {
    let coins: Vec<_> = (0..500).map(coin).collect();
    let (all, twice) = written(&coins, usize::MAX);
    assert_eq!(twice, 0);
    assert_eq!(written(&coins, 3_000).0, all);
    assert_eq!(written(&coins, 1).0, all);
    let mut sorted = coins.clone();
    sorted.sort_by_key(|coin| (coin.txid, coin.vout));
    let lines: Vec<_> = all.lines().collect();
    assert_eq!(lines.len(), 501);
    for (line, coin) in lines[1..].iter().zip(&sorted) {
        let txid = Hex(coin.txid).reversed();
        let wanted = format!("{txid},{},{},", coin.vout, coin.height);
        assert!(line.starts_with(&wanted), "{line}, not {wanted}");
    }
    assert_eq!(written(&[], 1), (format!("{HEAD}\n"), 0));
}

#[test]
fn an_output_that_comes_twice_is_counted() {
    let coins = [coin(1), coin(2), coin(1)];
    assert_eq!(written(&coins, usize::MAX).1, 1);
    assert_eq!(written(&coins, 1).1, 1);
}
