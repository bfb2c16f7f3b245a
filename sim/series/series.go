// Package series plays recorded sensor series as simulated devices.
//
// A series is a CSV file with the columns timestamp and value; each becomes one device with the
// metric "value". It knows nothing of MQTT: a Player is a source for the fleet.
package series

import (
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// Series is a recording.
type Series struct {
	ID     string // from the file's path, legal as a device id
	Times  []int64
	Values []float64
}

//go:embed data/*.csv
var recorded embed.FS

// Recorded gives the series that come with the program; data/README.md says where they are from.
func Recorded() ([]Series, error) {
	data, err := fs.Sub(recorded, "data")
	if err != nil {
		return nil, fmt.Errorf("recorded series: %w", err)
	}
	return Load(data)
}

// Load reads every CSV file of a tree, in the order of their paths.
func Load(tree fs.FS) ([]Series, error) {
	var all []Series
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.EqualFold(path.Ext(name), ".csv") {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		s, err := read(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.ID = deviceID(name)
		all = append(all, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load series: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("load series: no CSV file found")
	}
	return all, nil
}

func read(r io.Reader) (Series, error) {
	var s Series
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = -1
	lines.ReuseRecord = true
	header, err := lines.Read()
	if err != nil {
		return s, fmt.Errorf("header: %w", err)
	}
	if len(header) < 2 || header[0] != "timestamp" || header[1] != "value" {
		return s, fmt.Errorf("header %q: want timestamp,value", strings.Join(header, ","))
	}
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return s, err
		}
		line, _ := lines.FieldPos(0)
		if len(fields) < 2 {
			return s, fmt.Errorf("line %d: want timestamp,value", line)
		}
		at, err := parseTime(fields[0])
		if err != nil {
			return s, fmt.Errorf("line %d: %w", line, err)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(fields[1]), 64)
		if err != nil {
			return s, fmt.Errorf("line %d: %w", line, err)
		}
		if n := len(s.Times); n > 0 { // clocks are set back in summer's last hour; rows keep their order
			at = max(at, s.Times[n-1])
		}
		s.Times = append(s.Times, at)
		s.Values = append(s.Values, v)
	}
	if len(s.Times) < 2 {
		return s, errors.New("fewer than two rows")
	}
	return s, nil
}

func parseTime(s string) (int64, error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.DateTime, time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixNano(), nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return unixTime(n), nil
	}
	return 0, fmt.Errorf("timestamp %q: want 2006-01-02 15:04:05, RFC 3339 or an integer since 1970", s)
}

// unixTime is n in nanoseconds; whether n counts seconds, milliseconds, microseconds or nanoseconds
// shows in its size.
func unixTime(n int64) int64 {
	for _, unit := range []int64{1e9, 1e6, 1e3} {
		if magnitude := max(n, -n); magnitude < 1e11*(1e9/unit) {
			return n * unit
		}
	}
	return n
}

// maxID is the room for a series' part of a device id; a prefix comes in front of it.
const maxID = 100

// deviceID makes a path a legal device id: folders become dots, what is not allowed becomes "-".
func deviceID(name string) string {
	name = strings.TrimSuffix(name, path.Ext(name))
	id := []byte(strings.ReplaceAll(name, "/", "."))
	for i, c := range id {
		legal := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._:@-", c) >= 0
		if !legal {
			id[i] = '-'
		}
	}
	return string(id[max(0, len(id)-maxID):])
}
