package questdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/doppel-iot/doppel/actors/host"
)

// CursorStore keeps what is committed for each partition. A lost or old cursor costs time, not rows.
type CursorStore interface {
	// Load gives the last saved cursors; none when there never were any.
	Load(ctx context.Context) (map[int32]host.Cursor, error)
	// Save replaces those of the partitions given. An error makes the writer load them again.
	Save(ctx context.Context, cursors map[int32]host.Cursor) error
	// Reset forgets all: QuestDB has none of the rows any more.
	Reset(ctx context.Context) error
}

// FileCursors keeps cursors in a file. It belongs to one Writer.
type FileCursors struct {
	path, identity string
	all            map[int32]host.Cursor // what the file says
}

// NewFileCursors keeps cursors in the file path. identity names the log and the QuestDB they are
// about: cursors stored under another one do not count.
func NewFileCursors(path, identity string) *FileCursors {
	return &FileCursors{path: path, identity: identity}
}

type cursorFile struct {
	Identity   string               `json:"identity"`
	Partitions map[int32]fileCursor `json:"partitions"`
}

type fileCursor struct {
	Next  int64  `json:"next"`
	Epoch uint64 `json:"epoch"`
	N     uint64 `json:"n"`
}

// Load implements CursorStore.
func (f *FileCursors) Load(context.Context) (map[int32]host.Cursor, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load cursors: %w", err)
	}
	var file cursorFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("load cursors from %s: %w", f.path, err)
	}
	if file.Identity != f.identity {
		return nil, nil
	}
	f.all = make(map[int32]host.Cursor, len(file.Partitions))
	for p, c := range file.Partitions {
		f.all[p] = host.Cursor(c)
	}
	return maps.Clone(f.all), nil
}

// Save implements CursorStore. It replaces the file in one step; a power cut may bring the old one
// back, or none.
func (f *FileCursors) Save(_ context.Context, cursors map[int32]host.Cursor) error {
	if f.all == nil {
		f.all = make(map[int32]host.Cursor, len(cursors))
	}
	maps.Copy(f.all, cursors)
	return f.write()
}

// Reset implements CursorStore.
func (f *FileCursors) Reset(context.Context) error {
	f.all = nil
	if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return f.write()
}

func (f *FileCursors) write() error {
	file := cursorFile{Identity: f.identity, Partitions: make(map[int32]fileCursor, len(f.all))}
	for p, c := range f.all {
		file.Partitions[p] = fileCursor(c)
	}
	b, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("save cursors: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("save cursors: %w", err)
	}
	if err := os.Rename(tmp, f.path); err != nil {
		return fmt.Errorf("save cursors: %w", err)
	}
	return nil
}
