package cli

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/baseline"
)

// A detector scores one series: it sees each row once, in order, and returns how anomalous it is, or
// NaN for no opinion.
type detector func(t int64, x float64) float64

// newDetector makes a fresh detector for one series.
func newDetector(name string) (detector, error) {
	switch name {
	case "zscore":
		return newZScore(), nil
	case "surprise":
		return newSurprise(), nil
	default:
		return nil, fmt.Errorf("unknown detector %q: choose zscore or surprise", name)
	}
}

func newZScore() detector {
	config := baseline.Default()
	var b baseline.Baseline
	return func(t int64, x float64) float64 {
		s := b.Step(&config, t, x)
		if !s.OK {
			return math.NaN()
		}
		return math.Abs(s.Score)
	}
}

func newSurprise() detector {
	var s baseline.Surprise
	return func(t int64, x float64) float64 {
		p := s.Step(t, x)
		if !p.OK {
			return math.NaN()
		}
		return p.Score
	}
}

// Detect runs a detector of the core over every CSV file below data, each on its own and in its
// order of rows, and writes the same relative paths below out with the column anomaly_score added.
func Detect(name, data, out string) error {
	if _, err := newDetector(name); err != nil {
		return err
	}
	paths, err := seriesBelow(data, out)
	if err != nil {
		return err
	}
	for _, path := range paths {
		d, err := newDetector(name)
		if err != nil {
			return err
		}
		if err := detectFile(d, filepath.Join(data, path), filepath.Join(out, path)); err != nil {
			return err
		}
	}
	return nil
}

// seriesBelow lists the CSV files below data, relative to it. The output folder may lie inside.
func seriesBelow(data, out string) ([]string, error) {
	skip, err := filepath.Abs(out)
	if err != nil {
		return nil, fmt.Errorf("resolve --out: %w", err)
	}
	root, err := filepath.Abs(data)
	if err != nil {
		return nil, fmt.Errorf("resolve --data: %w", err)
	}
	if skip == root {
		return nil, errors.New("--out is the same folder as --data: the series would be overwritten; choose another")
	}
	var paths []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path == skip:
			return filepath.SkipDir
		case d.IsDir() || !strings.EqualFold(filepath.Ext(path), ".csv"):
			return nil
		}
		relative, err := filepath.Rel(root, path)
		paths = append(paths, relative)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list series: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no .csv file below %s", data)
	}
	return paths, nil
}

func detectFile(d detector, from, to string) (err error) {
	in, err := os.Open(from) //nolint:gosec // the user names the folder
	if err != nil {
		return fmt.Errorf("open series: %w", err)
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return fmt.Errorf("make output folder: %w", err)
	}
	file, err := os.Create(to) //nolint:gosec // the user names the folder
	if err != nil {
		return fmt.Errorf("create output: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buffered := bufio.NewWriter(file)
	if err := detectSeries(d, from, in, buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return nil
}

// detectSeries scores one series; name stands in errors.
func detectSeries(d detector, name string, in io.Reader, out io.Writer) error {
	r := csv.NewReader(in)
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	r.ReuseRecord = true
	w := csv.NewWriter(out)
	columns, err := readHeader(r, name)
	if err != nil {
		return err
	}
	_ = w.Write([]string{"timestamp", "value", "anomaly_score"}) // the error stays until Flush
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		line, _ := r.FieldPos(0)
		if len(row) <= max(columns.timestamp, columns.value) {
			return fmt.Errorf("%s:%d: want at least %d fields, got %d", name, line, max(columns.timestamp, columns.value)+1, len(row))
		}
		stamp, number := row[columns.timestamp], row[columns.value]
		t, err := parseTimestamp(stamp)
		if err != nil {
			return fmt.Errorf("%s:%d: timestamp: %w", name, line, err)
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s:%d: value: %q is not a finite number", name, line, number)
		}
		score := ""
		if s := d(t, x); !math.IsNaN(s) {
			score = strconv.FormatFloat(s, 'g', -1, 64)
		}
		_ = w.Write([]string{stamp, number, score})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return fmt.Errorf("write scores of %s: %w", name, err)
	}
	return nil
}

type seriesColumns struct{ timestamp, value int }

func readHeader(r *csv.Reader, name string) (seriesColumns, error) {
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return seriesColumns{}, fmt.Errorf("read %s: it is empty: want the header timestamp,value", name)
	}
	if err != nil {
		return seriesColumns{}, fmt.Errorf("read header of %s: %w", name, err)
	}
	c := seriesColumns{timestamp: -1, value: -1}
	for i, column := range header {
		switch strings.ToLower(strings.TrimSpace(strings.TrimPrefix(column, "\ufeff"))) {
		case "timestamp":
			c.timestamp = i
		case "value":
			c.value = i
		}
	}
	if c.timestamp < 0 || c.value < 0 {
		return c, fmt.Errorf("%s:1: header %q: want the columns timestamp and value", name, strings.Join(header, ","))
	}
	return c, nil
}

// parseTimestamp reads "2006-01-02 15:04:05" as UTC, RFC 3339, or an integer of Unix seconds,
// milliseconds, microseconds or nanoseconds, told apart by size.
func parseTimestamp(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		for _, unit := range []int64{1e9, 1e6, 1e3} {
			if magnitude := max(n, -n); magnitude < 1e11*(1e9/unit) {
				return n * unit, nil
			}
		}
		return n, nil
	}
	for _, layout := range []string{time.DateTime, time.RFC3339Nano} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%q is neither 2006-01-02 15:04:05 nor RFC 3339 nor an integer", s)
}
