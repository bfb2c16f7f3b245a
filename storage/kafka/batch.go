package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// Layout of a record batch, format 2 (KIP-98): all integers big-endian.
const (
	batchLength     = 8  // int32, counted from behind itself
	batchMagic      = 16 // int8
	batchCRC        = 17 // uint32, of all behind it
	batchAttributes = 21 // int16
	batchLastDelta  = 23 // int32
	batchCount      = 57 // int32
	batchHeader     = 61

	attrCodec   = 0x07
	attrControl = 0x20
)

var errCorrupt = errors.New("corrupt record batch")

// wholeBatches cuts off a batch that the answer holds only in part and returns the offset behind the last whole
// one, which counts offsets that hold no record any more.
func wholeBatches(b []byte) (whole []byte, next int64, err error) {
	n := 0
	for len(b)-n >= batchHeader {
		size := batchLength + 4 + int(int32(binary.BigEndian.Uint32(b[n+batchLength:])))
		if size < batchHeader || b[n+batchMagic] != 2 {
			return nil, 0, fmt.Errorf("%w: %d bytes, format %d", errCorrupt, size, b[n+batchMagic])
		}
		if size > len(b)-n {
			break
		}
		base := int64(binary.BigEndian.Uint64(b[n:]))
		next = base + int64(int32(binary.BigEndian.Uint32(b[n+batchLastDelta:]))) + 1
		n += size
	}
	if n == 0 {
		// Brokers send the first batch whole even where it is larger than asked for.
		return nil, 0, fmt.Errorf("%w: cut off after %d bytes", errCorrupt, len(b))
	}
	return b[:n], next, nil
}

// eachRecord calls fn for the records of whole batches with from <= offset < to.
func eachRecord(b []byte, from, to int64, fn func(host.LogRecord) error) error {
	for len(b) > 0 {
		size := batchLength + 4 + int(binary.BigEndian.Uint32(b[batchLength:]))
		batch := b[:size]
		b = b[size:]
		if crc := binary.BigEndian.Uint32(batch[batchCRC:]); crc != crc32.Checksum(batch[batchAttributes:], castagnoli) {
			return fmt.Errorf("%w: checksum", errCorrupt)
		}
		attrs := binary.BigEndian.Uint16(batch[batchAttributes:])
		if attrs&attrControl != 0 {
			continue // a transaction's marker: holds an offset, is no record
		}
		records := batch[batchHeader:]
		if codec := attrs & attrCodec; codec != 0 {
			var err error
			if records, err = kgo.DefaultDecompressor().Decompress(records, kgo.CompressionCodecType(codec)); err != nil {
				return fmt.Errorf("%w: %w", errCorrupt, err)
			}
		}
		base := int64(binary.BigEndian.Uint64(batch))
		count := int32(binary.BigEndian.Uint32(batch[batchCount:]))
		if err := eachOf(records, count, base, from, to, fn); err != nil {
			return err
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// eachOf walks the records of one batch: length, attributes, time delta, offset delta, key, value,
// headers, each number a zigzag varint. Headers are skipped.
func eachOf(b []byte, count int32, base, from, to int64, fn func(host.LogRecord) error) error {
	for range count {
		size, n := binary.Varint(b)
		if n <= 0 || size < 1 || size > int64(len(b)-n) {
			return fmt.Errorf("%w: record length", errCorrupt)
		}
		rec := b[n : n+int(size)]
		b = b[n+int(size):]

		rec = rec[1:] // attributes: unused
		if _, n = binary.Varint(rec); n <= 0 {
			return fmt.Errorf("%w: record time", errCorrupt)
		}
		rec = rec[n:]
		delta, n := binary.Varint(rec)
		if n <= 0 {
			return fmt.Errorf("%w: record offset", errCorrupt)
		}
		offset := base + delta
		if offset < from {
			continue
		}
		if offset >= to {
			return nil
		}
		key, rec, ok := varBytes(rec[n:])
		if !ok {
			return fmt.Errorf("%w: key at offset %d", errCorrupt, offset)
		}
		value, _, ok := varBytes(rec)
		if !ok {
			return fmt.Errorf("%w: value at offset %d", errCorrupt, offset)
		}
		if err := fn(host.LogRecord{Offset: offset, Key: key, Value: value}); err != nil {
			return err
		}
	}
	return nil
}

// varBytes takes length-prefixed bytes; a length of -1 is nil.
func varBytes(b []byte) (v, rest []byte, ok bool) {
	size, n := binary.Varint(b)
	if n <= 0 || size > int64(len(b)-n) {
		return nil, nil, false
	}
	if b = b[n:]; size < 0 {
		return nil, b, true
	}
	return b[:size:size], b[size:], true
}
