package questdb

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Rows calls fn with the number of rows in telemetry of each device, in one consistent answer of
// QuestDB's. What was flushed shows there a little later.
func (w *Writer) Rows(ctx context.Context, fn func(device string, rows uint64)) error {
	err := w.db.export(ctx, "SELECT device, count() FROM telemetry", func(values []string) error {
		rows, err := strconv.ParseUint(values[len(values)-1], 10, 64)
		if err != nil || len(values) != 2 {
			return fmt.Errorf("questdb answer: %q is no device with a count", values)
		}
		fn(values[0], rows)
		return nil
	})
	if errors.Is(err, errNoTable) {
		return nil
	}
	return err
}

// export gives the rows of stmt as text, without keeping them: answers of any size.
func (c *sqlClient) export(ctx context.Context, stmt string, fn func(values []string) error) error {
	u := *c.url
	u.Path = "/exp"
	u.RawQuery = url.Values{"query": {stmt}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("questdb statement: %w", err)
	}
	if c.user != nil {
		password, _ := c.user.Password()
		req.SetBasicAuth(c.user.Username(), password)
	}
	resp, err := (&http.Client{Transport: c.client.Transport}).Do(req) // bounded by ctx: it may take long
	if err != nil {
		return fmt.Errorf("questdb statement: %w", cause(err))
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end, or the connection is of no use
	if resp.StatusCode != http.StatusOK {
		return c.exec(ctx, stmt) // says what is wrong
	}
	in := csv.NewReader(resp.Body)
	in.ReuseRecord = true
	for header := true; ; header = false {
		values, err := in.Read()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("questdb answer: %w", err)
		case header:
		default:
			if err := fn(values); err != nil {
				return err
			}
		}
	}
}

// cause takes the url off an error: it holds the whole statement.
func cause(err error) error {
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
