package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeSeries(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
}

func TestDetect(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	var flat, rows strings.Builder
	flat.WriteString("timestamp,value\n")
	rows.WriteString("timestamp,value\n")
	for i := range 100 {
		value := 20 + i%3
		if i == 80 {
			value = 90
		}
		// The same second four times, and steps back: rows keep their order.
		rows.WriteString("2026-11-22 10:00:" + strconv.Itoa(10+(100-i)/4) + "," + strconv.Itoa(value) + "\n")
		flat.WriteString(strconv.Itoa(1_795_341_600+i) + ",5\n")
	}
	writeSeries(t, filepath.Join(data, "plant", "hall 1", "pump.csv"), rows.String())
	writeSeries(t, filepath.Join(data, "flat.csv"), flat.String())
	writeSeries(t, filepath.Join(data, "notes.txt"), "not a series")
	if err := Detect("zscore", data, out); err != nil {
		t.Fatal(err)
	}

	got := readLines(t, filepath.Join(out, "plant", "hall 1", "pump.csv"))
	want := strings.Split(strings.TrimSuffix(rows.String(), "\n"), "\n")
	if len(got) != len(want) || got[0] != "timestamp,value,anomaly_score" {
		t.Fatalf("%d rows under %q, want %d", len(got), got[0], len(want))
	}
	for i := 1; i < len(got); i++ {
		row, score := cut(got[i])
		if row != want[i] {
			t.Fatalf("row %d is %q, want %q first", i, got[i], want[i])
		}
		value, err := strconv.ParseFloat(score, 64)
		if empty := score == ""; empty != (i <= 30) {
			t.Fatalf("row %d: score %q, want none in the first 30 rows only", i, score)
		}
		if alarm := err == nil && value > 4; alarm != (i == 81) {
			t.Errorf("row %d: score %q, want an alarm at row 81 only", i, score)
		}
	}
	if got := readLines(t, filepath.Join(out, "flat.csv")); got[len(got)-1] != "1795341699,5,0" {
		t.Errorf("last row of a constant: %q", got[len(got)-1])
	}
	if _, err := os.Stat(filepath.Join(out, "notes.txt")); !os.IsNotExist(err) {
		t.Errorf("notes.txt was taken for a series: %v", err)
	}
}

func cut(row string) (before, score string) {
	i := strings.LastIndexByte(row, ',')
	return row[:max(i, 0)], row[i+1:]
}

func TestDetectErrors(t *testing.T) {
	for _, tc := range []struct{ name, detector, content, want string }{
		{"detector", "nosuch", "timestamp,value\n", `unknown detector "nosuch": choose zscore or surprise`},
		{"header", "zscore", "time,val\n", `:1: header "time,val": want the columns timestamp and value`},
		{"empty", "zscore", "", "s.csv: it is empty"},
		{"time", "zscore", "timestamp,value\n2026-11-22 10:00:00,1\nyesterday,2\n", `s.csv:3: timestamp: "yesterday" is neither`},
		{"value", "zscore", "timestamp,value\n\n1,two\n", `s.csv:3: value: "two" is not a finite number`},
		{"nan", "zscore", "timestamp,value\n1,NaN\n", `s.csv:2: value: "NaN" is not a finite number`},
		{"short", "zscore", "timestamp,value\n1\n", "s.csv:2: want at least 2 fields, got 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data, out := t.TempDir(), t.TempDir()
			writeSeries(t, filepath.Join(data, "s.csv"), tc.content)
			err := Detect(tc.detector, data, out)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want it to say %q", err, tc.want)
			}
		})
	}
	data := t.TempDir()
	if err := Detect("zscore", data, t.TempDir()); err == nil {
		t.Error("no error for a folder without a series")
	}
	if err := Detect("zscore", data, data); err == nil || !strings.Contains(err.Error(), "overwritten") {
		t.Errorf("error %v for --out = --data", err)
	}
}

func TestParseTimestamp(t *testing.T) {
	const want = 1_795_341_600_000_000_000
	got := map[string]int64{}
	texts := []string{
		"2026-11-22 10:00:00", "2026-11-22T10:00:00Z", "2026-11-22T11:00:00+01:00",
		"1795341600", "1795341600000", "1795341600000000", "1795341600000000000",
	}
	all := map[string]int64{}
	for _, text := range texts {
		stamp, err := parseTimestamp(text)
		if err != nil {
			t.Fatal(err)
		}
		got[text], all[text] = stamp, want
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("timestamps (-want +got):\n%s", diff)
	}
}

func TestDetectSurprise(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	var rows strings.Builder
	rows.WriteString("timestamp,value\n")
	for i := range 300 {
		value := 20 + float64(i%7)/10
		if i == 250 {
			value = 60
		}
		rows.WriteString(strconv.Itoa(1_795_341_600+300*i) + "," + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
	}
	writeSeries(t, filepath.Join(data, "s.csv"), rows.String())
	if err := Detect("surprise", data, out); err != nil {
		t.Fatal(err)
	}
	got := readLines(t, filepath.Join(out, "s.csv"))
	for i, row := range got[1:] {
		_, text := cut(row)
		if empty := text == ""; empty != (i < 100) {
			t.Fatalf("row %d: score %q, want none in the first 100 only", i, text)
		}
		score, err := strconv.ParseFloat(text, 64)
		if alarm := err == nil && score >= 4.75; alarm != (i == 250) {
			t.Errorf("row %d: score %q, want an alarm at row 250 only", i, text)
		}
	}
}
