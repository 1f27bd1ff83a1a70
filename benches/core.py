"""Connects a file of regtest blocks to Bitcoin Core's engine (PyPI: py-bitcoinkernel) and prints what that took.

Started by `utxo --python`. Arguments: block file, folder to work in. Core validates what it connects: headers, proof of
work, amounts, scripts. It writes its coins when it ends or its cache is full, not block by block.
"""

import os
import resource
import struct
import sys
import time
from importlib.metadata import version

import pbk


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    path, folder = sys.argv[1:3]
    with open(path, "rb") as file:
        data = file.read()
    blocks, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        blocks.append(data[at + 8 : at + 8 + length])
        at += 8 + length

    options = pbk.ContextOptions()
    options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
    context = pbk.Context(options)
    manager_options = pbk.ChainstateManagerOptions(context, folder, os.path.join(folder, "blocks"))
    manager_options.set_worker_threads_num(0)
    manager = pbk.ChainstateManager(manager_options)
    start, wall = cpu(), time.monotonic()
    for raw in blocks:
        manager.process_block(pbk.Block(raw))
    connected, wall = cpu() - start, time.monotonic() - wall
    height = manager.best_entry.height
    assert height == len(blocks), f"{height} of {len(blocks)} blocks were connected"
    # Ending writes the coins.
    del manager
    written = cpu() - start
    print(f"cpu_connect {connected:.2f}")
    print(f"cpu {written:.2f}")
    print(f"wall {wall:.2f}")
    print(f"rss {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - len(data) // 1024) // 1024}")
    print(f"version py-bitcoinkernel {version('py-bitcoinkernel')}")


if __name__ == "__main__":
    main()
