package state

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestReader(t *testing.T) {
	b := []byte{7}
	b = binary.AppendUvarint(b, 300)
	b = binary.AppendVarint(b, -5)
	b = AppendFloat(b, math.Inf(-1))
	b = AppendText(b, "name")
	b = AppendText(b, []byte{0, 1})
	b = AppendText(b, "")
	b = binary.AppendUvarint(b, 2)
	b = append(b, 1, 2)
	asked := ""
	r := NewReader(b, func(name []byte) string { asked = string(name); return "shared" })
	if got := r.Byte(); got != 7 {
		t.Errorf("byte %d", got)
	}
	if got := r.Uint(); got != 300 {
		t.Errorf("uint %d", got)
	}
	if got := r.Int(); got != -5 {
		t.Errorf("int %d", got)
	}
	if got := r.Float(); !math.IsInf(got, -1) {
		t.Errorf("float %v", got)
	}
	if got := r.Name(); got != "shared" || asked != "name" {
		t.Errorf("name %q for %q", got, asked)
	}
	got := r.Bytes()
	clear(b[:len(b)-4]) // what was read lives on its own
	if string(got) != "\x00\x01" {
		t.Errorf("bytes %q", got)
	}
	if got := r.Text(); got != "" {
		t.Errorf("text %q", got)
	}
	if got := r.Count(1, 10); got != 2 || r.Len() != 2 || r.Err() != nil {
		t.Errorf("count %d, %d bytes left, %v", got, r.Len(), r.Err())
	}
}

// TestFailure: the first failure stays, and all that comes behind it is nothing.
func TestFailure(t *testing.T) {
	huge := binary.AppendUvarint(nil, math.MaxUint64)
	for name, read := range map[string]func(*Reader){
		"byte":  func(r *Reader) { r.rest = nil; r.Byte() },
		"uint":  func(r *Reader) { r.rest = r.rest[:3]; r.Uint() },
		"int":   func(r *Reader) { r.rest = r.rest[:3]; r.Int() },
		"fixed": func(r *Reader) { r.rest = r.rest[:7]; r.Fixed() },
		"text":  func(r *Reader) { _ = r.Text() },
		"bytes": func(r *Reader) { _ = r.Bytes() },
		"count": func(r *Reader) { r.Count(1, math.MaxInt) },
		"limit": func(r *Reader) { r.rest = []byte{3, 0, 0, 0}; r.Count(1, 2) },
		"fail":  func(r *Reader) { r.Fail("no %s", "twin") },
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(huge, nil)
			read(&r)
			first := r.Err()
			r.Fail("another")
			if first == nil || r.Err() != first || r.Len() != 0 { //nolint:errorlint // the very same
				t.Fatalf("error %v, then %v, %d bytes left", first, r.Err(), r.Len())
			}
			if r.Byte() != 0 || r.Uint() != 0 || r.Float() != 0 || r.Text() != "" || len(r.Bytes()) != 0 || r.Count(1, 9) != 0 {
				t.Error("something was read after a failure")
			}
		})
	}
}
