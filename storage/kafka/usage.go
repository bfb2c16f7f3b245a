package kafka

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// segmentUse is what one segment of a partition takes.
type segmentUse struct {
	base    int64 // its first offset
	bytes   int64
	batches int64
}

// usage is what an embedded log takes on disk.
type usage struct {
	total    int64                  // bytes of all topics
	batches  int64                  // of all topics
	others   int64                  // bytes of all topics but the one measured
	segments map[int32][]segmentUse // of the one measured, by partition
}

// indexEntry is the size of a batch's entry in the index file beside a segment.
const indexEntry = 15

// measure reads the sizes of the files of an embedded log. Files may go meanwhile.
func measure(dir, topic string) (usage, error) {
	u := usage{segments: map[int32][]segmentUse{}}
	parts, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil // nothing was ever written
	}
	if err != nil {
		return u, err
	}
	for _, d := range parts {
		if !d.IsDir() {
			continue
		}
		path := filepath.Join(dir, "partitions", d.Name())
		segments, err := segmentsOf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, err
		}
		p, ours := partitionNamed(d.Name(), topic)
		for _, s := range segments {
			index, err := os.Stat(strings.TrimSuffix(segmentPath(path, s.BaseOffset), ".dat") + ".idx")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return u, err
			}
			su := segmentUse{base: s.BaseOffset, bytes: s.Size}
			if err == nil {
				su.bytes += index.Size()
				su.batches = index.Size() / indexEntry
			}
			u.total += su.bytes
			u.batches += su.batches
			if ours {
				u.segments[p] = append(u.segments[p], su)
			} else {
				u.others += su.bytes
			}
		}
	}
	return u, nil
}

// partitionNamed reads the name of a partition's directory.
func partitionNamed(name, topic string) (int32, bool) {
	number, ok := strings.CutPrefix(name, topic+"-")
	if !ok {
		return 0, false
	}
	p, err := strconv.ParseInt(number, 10, 32)
	return int32(p), err == nil
}

// space is what a disk has, in bytes.
type space struct{ total, free int64 }

// spaceOf asks for the disk of a directory. Free is what this process may use.
func spaceOf(dir string) (space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return space{}, fmt.Errorf("space on the disk of %s: %w", dir, err)
	}
	size := int64(s.Bsize) //nolint:unconvert // 32 bits on some systems
	return space{total: int64(s.Blocks) * size, free: int64(s.Bavail) * size}, nil
}

// The part of a disk that the log leaves free: a sixteenth, at most 64 MiB. Checkpoints, which make room in
// it, may use half of that, and what the log writes when it is closed has the rest.
const (
	reserveShare = 16
	reserveMost  = 64 << 20
)

func (s space) reserve() int64 { return min(s.total/reserveShare, reserveMost) }
