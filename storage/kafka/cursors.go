package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
)

const (
	// cursorsKept is how many places to trim to are remembered for a partition.
	cursorsKept = 256
	// cursorsApart is the least distance between two of them, in records, to begin with.
	cursorsApart = 1024
)

// cursors are the places of the changelog that it may be trimmed to, and those it was trimmed to: a
// reader cannot start at any offset, only where it knows the epoch and count in force (rule R4).
//
// They outlive the process in a file beside the log.
type cursors struct {
	path     string // of the file; empty: none
	identity string // of the changelog they belong to

	mu    sync.Mutex
	parts []kept
	dirty bool // the file is behind
}

// kept is one partition's.
type kept struct {
	needs   host.Needs
	known   bool // needs is
	removed bool // the changelog was trimmed, to oldest
	oldest  host.Cursor
	places  []host.Cursor // ascending, above oldest
	apart   int64
}

// cursorsFile is the file's content.
type cursorsFile struct {
	Version    int              `json:"version"`
	Identity   string           `json:"identity"`
	Partitions []cursorsOfAPart `json:"partitions"`
}

type cursorsOfAPart struct {
	Oldest *host.Cursor  `json:"oldest,omitempty"`
	Places []host.Cursor `json:"places"`
}

const cursorsVersion = 1

// openCursors reads the file that belongs to the log.
func (c *Client) openCursors(ctx context.Context) error {
	identity, err := c.Identity(ctx)
	if err != nil {
		return err
	}
	path := ""
	if c.cfg.Embedded && c.cfg.DataDir != "" {
		path = filepath.Join(c.cfg.DataDir, c.cfg.TopicPrefix+"retention.json")
	}
	c.keep, err = readCursors(path, identity, c.cfg.Partitions)
	return err
}

// readCursors reads a file, if it is of this log.
func readCursors(path, identity string, partitions int32) (*cursors, error) {
	k := &cursors{path: path, identity: identity, parts: make([]kept, partitions)}
	for p := range k.parts {
		k.parts[p].apart = cursorsApart
	}
	if path == "" {
		return k, nil
	}
	b, err := os.ReadFile(path) //nolint:gosec // a file of the data directory
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	var f cursorsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Version != cursorsVersion {
		return nil, fmt.Errorf("%s: version %d, wanted %d", path, f.Version, cursorsVersion)
	}
	if f.Identity != identity {
		return k, nil // the log was made anew
	}
	for p := range min(len(f.Partitions), len(k.parts)) {
		if o := f.Partitions[p].Oldest; o != nil {
			k.parts[p].oldest, k.parts[p].removed = *o, true
		}
		for _, c := range f.Partitions[p].Places {
			k.parts[p].add(c)
		}
	}
	return k, nil
}

// need notes what a restore of p needs, which only grows.
func (k *cursors) need(p int32, n host.Needs) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := &k.parts[p]
	if n.Changelog.Next < e.needs.Changelog.Next {
		n.Changelog = e.needs.Changelog
	}
	n.State, n.Ingest = max(n.State, e.needs.State), max(n.Ingest, e.needs.Ingest)
	e.needs, e.known = n, true
	if e.add(n.Changelog) {
		k.dirty = true
	}
}

func (k *cursors) needs(p int32) (host.Needs, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.parts[p].needs, k.parts[p].known
}

func (k *cursors) oldest(p int32) (host.Cursor, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.parts[p].oldest, k.parts[p].removed
}

// cursorFor is the first place at or above wanted, or else the last one, that is at or below limit.
func (k *cursors) cursorFor(p int32, wanted, limit int64) (host.Cursor, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := &k.parts[p]
	var to host.Cursor
	ok := false
	consider := func(c host.Cursor) {
		if c.Next <= limit && (!ok || to.Next < wanted) && c.Next > e.oldest.Next {
			to, ok = c, true
		}
	}
	for _, c := range e.places {
		consider(c)
	}
	consider(e.needs.Changelog) // the newest, which need not be among them
	return to, ok
}

// trimTo notes durably that p is about to be trimmed to c.
func (k *cursors) trimTo(p int32, c host.Cursor) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := &k.parts[p]
	e.oldest, e.removed = c, true
	e.places = slices.DeleteFunc(e.places, func(o host.Cursor) bool { return o.Next <= c.Next })
	k.dirty = true
	return k.write()
}

// flush writes the file if it is behind.
func (k *cursors) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.dirty {
		return nil
	}
	return k.write()
}

// write replaces the file, under mu.
func (k *cursors) write() error {
	if k.path == "" {
		return nil
	}
	f := cursorsFile{Version: cursorsVersion, Identity: k.identity, Partitions: make([]cursorsOfAPart, len(k.parts))}
	for p := range k.parts {
		if e := &k.parts[p]; e.removed {
			f.Partitions[p].Oldest = &e.oldest
		}
		f.Partitions[p].Places = k.parts[p].places
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := replaceFile(k.path, b); err != nil {
		return fmt.Errorf("cursors of the log: %w", err)
	}
	k.dirty = false
	return nil
}

// add remembers c if it is far enough from the last place, and forgets some where there are many.
func (e *kept) add(c host.Cursor) bool {
	last := e.oldest.Next
	if n := len(e.places); n > 0 {
		last = e.places[n-1].Next
	}
	if c.Next < last+e.apart {
		return false
	}
	e.places = append(e.places, c)
	for len(e.places) > cursorsKept {
		e.apart *= 2
		last := e.places[0].Next - e.apart
		e.places = slices.DeleteFunc(e.places, func(o host.Cursor) bool {
			if o.Next < last+e.apart {
				return true
			}
			last = o.Next
			return false
		})
	}
	return true
}

// replaceFile writes a file at once: after a crash there is the old one or the new one.
func replaceFile(path string, b []byte) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(filepath.Clean(tmp), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
