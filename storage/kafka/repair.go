package kafka

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snapshot is what the embedded broker writes beside a partition's segments when it is closed.
type snapshot struct {
	Version          int               `json:"version"`
	HighWatermark    int64             `json:"high_watermark"`
	LastStableOffset int64             `json:"last_stable_offset"`
	LogStartOffset   int64             `json:"log_start_offset"`
	CreatedAt        time.Time         `json:"created_at"`
	Segments         []snapshotSegment `json:"segments"`
}

type snapshotSegment struct {
	BaseOffset int64 `json:"base_offset"`
	Size       int64 `json:"size"`
}

const (
	snapshotFile    = "snapshot.json"
	snapshotVersion = 1
	attrTransaction = 0x10
)

// repair makes a log that was not closed look as if it had been, before the broker opens it.
//
// Without a snapshot that fits, the broker reads each partition into memory as a whole, all at the
// same time: the log's size in memory, gigabytes, after each kill. With one it holds a segment of
// each at a time. A snapshot says nothing that the segments do not, except how many bytes of the last
// one are good, so this cuts off what a crash left half written and writes one. The broker takes the
// high watermark from the segments where the snapshot's is larger.
//
// Partitions with transactions (of other programs) are left to the broker, which must replay those.
func repair(dir string) error {
	parts, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range parts {
		if !p.IsDir() {
			continue
		}
		if err := repairPartition(filepath.Join(dir, "partitions", p.Name())); err != nil {
			return fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
	return nil
}

func repairPartition(dir string) error {
	segments, err := segmentsOf(dir)
	if err != nil || len(segments) == 0 {
		return err
	}
	var old snapshot
	switch b, err := os.ReadFile(filepath.Join(dir, snapshotFile)); { //nolint:gosec // a file of the data directory
	case err == nil:
		if json.Unmarshal(b, &old) == nil && slices.Equal(old.Segments, segments) {
			return nil // closed, or not written to since
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	last := len(segments) - 1
	for i := range segments {
		s := &segments[i]
		good, transactions, err := scanSegment(segmentPath(dir, s.BaseOffset), i == last)
		if err != nil {
			return err
		}
		if transactions {
			return nil // the snapshot does not fit, or there is none
		}
		if good < s.Size && i == last {
			if err := os.Truncate(segmentPath(dir, s.BaseOffset), good); err != nil {
				return err
			}
			s.Size = good
		}
	}
	if segments[last].Size == 0 { // the broker takes no empty segment
		path := segmentPath(dir, segments[last].BaseOffset)
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.Remove(strings.TrimSuffix(path, ".dat") + ".idx"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		segments = segments[:last]
	}
	if len(segments) == 0 {
		return nil
	}
	return writeSnapshot(dir, snapshot{
		Version:          snapshotVersion,
		HighWatermark:    math.MaxInt64,
		LastStableOffset: math.MaxInt64,
		LogStartOffset:   max(old.LogStartOffset, segments[0].BaseOffset),
		CreatedAt:        time.Now(),
		Segments:         segments,
	})
}

func segmentPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+".dat")
}

// segmentsOf lists the segment files in the order of their offsets.
func segmentsOf(dir string) ([]snapshotSegment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []snapshotSegment
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".dat")
		if !ok {
			continue
		}
		base, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, err
		}
		segments = append(segments, snapshotSegment{BaseOffset: base, Size: info.Size()})
	}
	slices.SortFunc(segments, func(a, b snapshotSegment) int { return cmp.Compare(a.BaseOffset, b.BaseOffset) })
	return segments, nil
}

// scanSegment goes from batch to batch and returns the length of what is whole, and whether any
// belongs to a transaction. With check it compares checksums too, of one batch at a time.
func scanSegment(path string, check bool) (good int64, transactions bool, err error) {
	f, err := os.Open(path) //nolint:gosec // a file of the data directory
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	var head [batchHeader]byte
	var body []byte
	next := int64(-1) // lowest offset that may follow
	for {
		if _, err := f.ReadAt(head[:], good); err != nil {
			if errors.Is(err, io.EOF) {
				return good, transactions, nil
			}
			return 0, false, err
		}
		size := batchLength + 4 + int64(int32(binary.BigEndian.Uint32(head[batchLength:])))
		base := int64(binary.BigEndian.Uint64(head[:]))
		if size < batchHeader || head[batchMagic] != 2 || good+size > info.Size() || base < next {
			return good, transactions, nil
		}
		if check {
			body = slices.Grow(body[:0], int(size))[:size]
			if _, err := f.ReadAt(body, good); err != nil {
				return 0, false, err
			}
			if binary.BigEndian.Uint32(body[batchCRC:]) != crc32.Checksum(body[batchAttributes:], castagnoli) {
				return good, transactions, nil
			}
		}
		if binary.BigEndian.Uint16(head[batchAttributes:])&(attrTransaction|attrControl) != 0 {
			transactions = true
		}
		next = base + int64(int32(binary.BigEndian.Uint32(head[batchLastDelta:]))) + 1
		good += size
	}
}

// writeSnapshot replaces a partition's snapshot at once.
func writeSnapshot(dir string, s snapshot) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, snapshotFile+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil { //nolint:gosec // a file of the data directory
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, snapshotFile)) //nolint:gosec // as before
}
