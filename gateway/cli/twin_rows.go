package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/codec"
)

// row is one twin of a file.
type row struct {
	line    int
	id      string
	tags    map[string]string
	removed []string
	desired *structpb.Struct
	err     error // why it is none
}

// paths are those of the mask of its update.
func (r *row) paths() []string {
	var paths []string
	for _, key := range slices.Sorted(maps.Keys(r.tags)) {
		paths = append(paths, "tags."+key)
	}
	for _, key := range r.removed {
		paths = append(paths, "tags."+key)
	}
	if r.desired != nil {
		paths = append(paths, "desired")
	}
	return paths
}

// rows is a file of twins. each calls fn for every row, bad ones too, and fails where nothing more can be read.
type rows interface {
	each(fn func(row) error) error
}

// newRows finds out what a file is.
func newRows(from io.Reader) (rows, error) {
	b := bufio.NewReaderSize(from, 64<<10)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3) // just peeked
	}
	for {
		c, err := b.Peek(1)
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the file is empty")
		case err != nil:
			return nil, err
		case c[0] == '[' || c[0] == '{':
			return &jsonRows{from: b}, nil
		case c[0] != ' ' && c[0] != '\n' && c[0] != '\r' && c[0] != '\t':
			return newCSVRows(b)
		}
		_, _ = b.Discard(1) // just peeked
	}
}

// csvRows are id and tags by columns.
type csvRows struct {
	r    *csv.Reader
	keys []string // of the columns; empty: the id
}

func newCSVRows(from io.Reader) (rows, error) {
	c := &csvRows{r: csv.NewReader(from)}
	c.r.FieldsPerRecord, c.r.TrimLeadingSpace, c.r.ReuseRecord = -1, true, true
	header, err := c.r.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	seen := make(map[string]bool)
	for i, key := range header {
		switch {
		case key == "":
			return nil, fmt.Errorf("header: column %d has no name", i+1)
		case seen[key]:
			return nil, fmt.Errorf("header: %q occurs twice", key)
		}
		seen[key] = true
		if key == "id" {
			key = ""
		}
		c.keys = append(c.keys, key)
	}
	if !seen["id"] {
		return nil, fmt.Errorf("header: %q has no column id; want id and the names of tags, or JSON", header)
	}
	return c, nil
}

func (c *csvRows) each(fn func(row) error) error {
	for {
		record, err := c.r.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			if err := fn(row{line: bad.StartLine, err: bad.Err}); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		line, _ := c.r.FieldPos(0)
		if err := fn(c.row(line, record)); err != nil {
			return err
		}
	}
}

func (c *csvRows) row(line int, record []string) row {
	r := row{line: line}
	if len(record) != len(c.keys) {
		r.err = fmt.Errorf("%d fields, the header has %d", len(record), len(c.keys))
		return r
	}
	for i, value := range record {
		switch {
		case c.keys[i] == "":
			r.id = value
		case value != "":
			if r.tags == nil {
				r.tags = make(map[string]string)
			}
			r.tags[c.keys[i]] = value
		}
	}
	r.check()
	return r
}

func (r *row) check() {
	if r.err == nil && !codec.ValidDevice([]byte(r.id)) {
		r.err = fmt.Errorf("id %.40q is no device id: want 1-128 bytes of [A-Za-z0-9._:@-]", r.id)
	}
}

// jsonRows are the objects of an array, or one after another.
type jsonRows struct{ from io.Reader }

func (j *jsonRows) each(fn func(row) error) error {
	lines := &lineCounter{from: j.from}
	d := json.NewDecoder(lines)
	if first := lines.peek(); first == '[' {
		if _, err := d.Token(); err != nil {
			return err
		}
		for d.More() {
			if err := j.one(d, lines, fn); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return at(lines, d, err)
	}
	for {
		err := j.one(d, lines, fn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// one reads the next object. Behind one that is not JSON nothing can be found.
func (*jsonRows) one(d *json.Decoder, lines *lineCounter, fn func(row) error) error {
	var text json.RawMessage
	if err := d.Decode(&text); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return at(lines, d, err)
	}
	r := row{line: lines.line(d.InputOffset() - int64(len(text)))}
	r.parse(text)
	r.check()
	return fn(r)
}

func at(lines *lineCounter, d *json.Decoder, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("line %d: %w", lines.line(d.InputOffset()), err)
}

func (r *row) parse(text []byte) {
	var o struct {
		ID      string             `json:"id"`
		Tags    map[string]*string `json:"tags"`
		Desired json.RawMessage    `json:"desired"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if r.err = d.Decode(&o); r.err != nil {
		return
	}
	r.id = o.ID
	for _, key := range slices.Sorted(maps.Keys(o.Tags)) {
		if o.Tags[key] == nil {
			r.removed = append(r.removed, key)
			continue
		}
		if r.tags == nil {
			r.tags = make(map[string]string)
		}
		r.tags[key] = *o.Tags[key]
	}
	if len(o.Desired) > 0 && string(o.Desired) != "null" {
		r.desired = new(structpb.Struct)
		if err := protojson.Unmarshal(o.Desired, r.desired); err != nil {
			r.err = fmt.Errorf("desired: want an object: %w", err)
		}
	}
}

// lineCounter remembers where the lines of what was read begin.
type lineCounter struct {
	from   io.Reader
	read   int64
	breaks []int64 // offsets behind line breaks
}

func (l *lineCounter) peek() byte {
	b, ok := l.from.(*bufio.Reader)
	if !ok {
		return 0
	}
	c, err := b.Peek(1)
	if err != nil {
		return 0
	}
	return c[0]
}

// Read implements io.Reader.
func (l *lineCounter) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	for i, c := range p[:n] {
		if c == '\n' {
			l.breaks = append(l.breaks, l.read+int64(i)+1)
		}
	}
	l.read += int64(n)
	return n, err
}

// line is the number of the line at an offset.
func (l *lineCounter) line(offset int64) int {
	return 1 + sort.Search(len(l.breaks), func(i int) bool { return l.breaks[i] > offset })
}
