// Package files reads files of secrets, and reads them again when they change.
//
// It knows nothing of what stands in them. Changes are found by looking, not by being told: mounted
// secrets are replaced by renamed folders, which notifications of a file system do not show.
//
// Follow runs on the goroutine of its caller; everything else is safe for concurrent use.
package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Every is how often files are looked at, unless something else is asked for.
const Every = 2 * time.Second

// MaxBytes is the most a file may have.
const MaxBytes = 8 << 20

// Read returns what stands in a file, up to MaxBytes.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, info.Size(), MaxBytes)
	}
	return os.ReadFile(path) //nolint:gosec // the user names it
}

// ErrEmpty says that a file that should hold a secret holds none.
var ErrEmpty = errors.New("is empty")

// Secret returns the one secret that stands in a file, without the space around it.
func Secret(path string) (string, error) {
	b, err := Read(path)
	if err != nil {
		return "", err
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return "", fmt.Errorf("%s %w", path, ErrEmpty)
	}
	return string(b), nil
}

// Follow calls read, since the files may have changed after they were first read, and again whenever one of
// them has and has stood still for one look more, since it may be written in place; until ctx ends. What is
// wrong with the new ones is logged once, and what was read before stays in force. every 0: the default.
func Follow(ctx context.Context, every time.Duration, log *slog.Logger, what string, read func() error, paths ...string) error {
	if every <= 0 {
		every = Every
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for first := true; ; first = false {
		seen := sum(paths) // before they are read, so that no change goes by unseen
		if err := read(); err != nil {
			log.ErrorContext(ctx, "changed files not taken, the former ones stay in force", "files", what, "error", err)
		} else if !first {
			log.InfoContext(ctx, "files read again", "files", what)
		}
		for before, now := seen, seen; now == seen || now != before; before, now = now, sum(paths) {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
	}
}

// sum is different when a file is; one that cannot be read counts as empty.
func sum(paths []string) (s [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range paths {
		b, _ := Read(p)
		one := sha256.Sum256(b)
		h.Write(one[:])
	}
	h.Sum(s[:0])
	return s
}
