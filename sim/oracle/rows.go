package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// rows asks QuestDB over its HTTP API.
type rows struct {
	base   string
	client *http.Client
}

func newRows(base string) *rows {
	return &rows{base: strings.TrimSuffix(base, "/"), client: &http.Client{Timeout: 10 * time.Second}}
}

// query gives the rows of a SELECT.
func (q *rows) query(ctx context.Context, sql string) ([][]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.base+"/exec?query="+url.QueryEscape(sql), nil)
	if err != nil {
		return nil, fmt.Errorf("questdb: %w", err)
	}
	res, err := q.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("questdb: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("questdb: %w", err)
	}
	var answer struct {
		Dataset [][]any `json:"dataset"`
		Error   string  `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("questdb: status %d: %w", res.StatusCode, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("questdb: %s", answer.Error)
	}
	return answer.Dataset, nil
}

// count is the number of rows of a boot. A table that isn't there yet has none.
func (q *rows) count(ctx context.Context, boot uint64) (uint64, error) {
	set, err := q.query(ctx, fmt.Sprintf("SELECT count() FROM telemetry WHERE boot = %d", boot))
	if err != nil {
		if strings.Contains(err.Error(), "does not exist") {
			return 0, nil
		}
		return 0, err
	}
	return number(set, 0), nil
}

// perDevice gives rows and distinct numbers of every device of a boot.
func (q *rows) perDevice(ctx context.Context, boot uint64) (map[string][2]uint64, error) {
	set, err := q.query(ctx, fmt.Sprintf(
		"SELECT device, sum(c), count() FROM (SELECT device, seq, count() c FROM telemetry WHERE boot = %d) GROUP BY device", boot))
	if err != nil {
		return nil, err
	}
	found := make(map[string][2]uint64, len(set))
	for i := range set {
		if id, ok := set[i][0].(string); ok {
			found[id] = [2]uint64{number(set[i:], 1), number(set[i:], 2)}
		}
	}
	return found, nil
}

func number(set [][]any, column int) uint64 {
	if len(set) == 0 || column >= len(set[0]) {
		return 0
	}
	v, _ := set[0][column].(float64)
	return uint64(v)
}

// judgeRows compares rows and distinct numbers by device with what was sent.
func judgeRows(devices []Device, found map[string][2]uint64) *account {
	a := &account{source: "questdb"}
	for _, d := range devices {
		got := found[d.ID]
		acked := d.Sum.Samples - uint64(len(d.Unacked))
		if got[1] < acked {
			a.add(Finding{Lost, d.ID, acked - got[1], fmt.Sprintf("%d samples acknowledged, %d rows", acked, got[1])})
		}
		if got[0] > got[1] {
			a.add(Finding{Duplicated, d.ID, got[0] - got[1], fmt.Sprintf("%d rows for %d samples", got[0], got[1])})
		}
		if got[1] > d.Sum.Samples {
			a.add(Finding{Duplicated, d.ID, got[1] - d.Sum.Samples, fmt.Sprintf("%d samples sent, rows for %d", d.Sum.Samples, got[1])})
		}
	}
	return a
}

// settle waits until the rows of a boot are as many as were acknowledged.
func (q *rows) settle(ctx context.Context, boot, want uint64, limit time.Duration) (got uint64, err error) {
	poll(ctx, limit, func() bool {
		got, err = q.count(ctx, boot)
		return err == nil && got >= want
	})
	return got, err
}
