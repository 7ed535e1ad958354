package db

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"
)

const (
	// fullPause is how long a request waits before it tries to connect again
	// where the server has no connection left and this process holds none.
	fullPause = 250 * time.Millisecond
	// fullMemory is how long a refused connection is not asked for again.
	fullMemory = 30 * time.Second
	// finishLimit bounds the end of a transaction whose caller has gone.
	finishLimit = 5 * time.Second
)

// connections is a pool in front of which requests queue: for pool_max_conns of
// the URL, and for fewer where the server gives fewer, as under the connection
// limit of a role. A request waits for its turn until its context ends. It is
// safe for concurrent use.
type connections struct {
	pool *pgxpool.Pool
	// slots has one slot for each connection of the pool. A connection that the
	// server refused takes its slot out of use for fullMemory.
	slots *semaphore.Weighted
	most  int64
	out   atomic.Int64 // slots out of use
	// begin opens a transaction with the session's settings where a pooler
	// stands between, which may give each transaction another session; nil:
	// the settings are those of the connection.
	begin func() (string, bool)
}

func newConnections(pool *pgxpool.Pool, begin func() (string, bool)) *connections {
	most := int64(pool.Config().MaxConns)
	return &connections{pool: pool, slots: semaphore.NewWeighted(most), most: most, begin: begin}
}

// held is a connection in the hands of one request.
type held struct {
	conn *pgxpool.Conn
	free func() // may be called again
}

// acquire takes a connection, and waits for one while there is none left.
func (c *connections) acquire(ctx context.Context) (*held, error) {
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	var refused error // why the attempt before failed: the end of ctx alone says less
	for {
		conn, err := c.pool.Acquire(ctx)
		switch {
		case err == nil:
			free := sync.OnceFunc(func() {
				conn.Release()
				c.slots.Release(1)
			})
			return &held{conn: conn, free: free}, nil
		case errors.Is(err, errPooler):
			continue // the next connection is made as a pooler wants it
		case !full(err):
			c.slots.Release(1)
			return nil, errors.Join(refused, err)
		}

		refused = err
		err = c.wait(ctx, refused)
		if err != nil {
			return nil, err
		}
	}
}

// wait is for a caller who holds a slot and whose connection was refused: it
// queues behind those who have one. The caller has a slot after nil and none
// after an error, which says why nothing was to be had.
func (c *connections) wait(ctx context.Context, refused error) error {
	if c.out.Add(1) < c.most {
		// The slot stays taken, so that others queue instead of being refused
		// one by one.
		time.AfterFunc(fullMemory, func() {
			c.out.Add(-1)
			c.slots.Release(1)
		})
		if err := c.slots.Acquire(ctx, 1); err != nil {
			return errors.Join(refused, err)
		}
		return nil
	}
	// The last slot must stay in use: other processes have all connections.
	c.out.Add(-1)
	pause := time.NewTimer(fullPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		c.slots.Release(1)
		return errors.Join(refused, ctx.Err())
	case <-pause.C:
		return nil
	}
}

// full reports whether a server, or a pooler before it, has no connection left:
// for this role, for this database, or at all.
func full(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	return pg.Code == "53300" || strings.Contains(pg.Message, "no more connections allowed") // PgBouncer has no code of its own
}

// alone calls do with the place of one connection of the pool, for a connection
// made by other means. It keeps the sum of all below pool_max_conns.
func (c *connections) alone(ctx context.Context, do func() error) error {
	h, err := c.acquire(ctx)
	if err != nil {
		return err
	}
	defer h.free()
	if err := h.conn.Conn().Close(ctx); err != nil {
		return err
	}
	return do()
}

// Begin begins a transaction with READ COMMITTED, whatever the server's default
// is. Its end gives the connection back.
func (c *connections) Begin(ctx context.Context) (pgx.Tx, error) {
	return c.BeginTx(ctx, pgx.TxOptions{})
}

// BeginTx is Begin with options; those of the isolation level are overruled.
func (c *connections) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	h, err := c.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return c.beginOn(ctx, h, options)
}

func (c *connections) beginOn(ctx context.Context, h *held, options pgx.TxOptions) (pgx.Tx, error) {
	options.IsoLevel = pgx.ReadCommitted
	if settings, pooled := c.begin(); pooled {
		options.BeginQuery = beginReadCommitted
		if options.AccessMode == pgx.ReadOnly {
			options.BeginQuery += " READ ONLY"
		}
		options.BeginQuery += settings
	}
	tx, err := h.conn.BeginTx(ctx, options)
	if err != nil {
		h.free()
		return nil, err
	}
	return &heldTx{Tx: tx, free: h.free}, nil
}

// Query runs one statement. The end of its rows gives the connection back.
func (c *connections) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	h, err := c.acquire(ctx)
	if err != nil {
		return nil, err
	}
	if _, pooled := c.begin(); pooled {
		return c.queryPooled(ctx, h, sql, args...)
	}
	rows, err := h.conn.Query(ctx, sql, args...)
	if err != nil {
		h.free()
		return nil, err
	}
	return &heldRows{Rows: rows, end: func(error) error { h.free(); return nil }}, nil
}

// queryPooled is Query in a transaction of its own, which has the settings of a
// session.
func (c *connections) queryPooled(ctx context.Context, h *held, sql string, args ...any) (pgx.Rows, error) {
	tx, err := c.beginOn(ctx, h, pgx.TxOptions{})
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		_ = finish(ctx, tx, err) // the error at hand says more
		return nil, err
	}
	return &heldRows{Rows: rows, end: func(err error) error { return finish(ctx, tx, err) }}, nil
}

// QueryRow is Query for one row.
func (c *connections) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := c.Query(ctx, sql, args...)
	return heldRow{rows, err}
}

// Exec runs one statement that gives no rows.
func (c *connections) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	h, err := c.acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	if _, pooled := c.begin(); !pooled {
		defer h.free()
		return h.conn.Exec(ctx, sql, args...)
	}
	tx, err := c.beginOn(ctx, h, pgx.TxOptions{})
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := tx.Exec(ctx, sql, args...)
	return tag, errors.Join(err, finish(ctx, tx, err))
}

// Reset drops the connections: idle ones now, others when they are given back.
func (c *connections) Reset() { c.pool.Reset() }

// Close waits for connections in use and closes all.
func (c *connections) Close() { c.pool.Close() }

// finish ends a transaction, also after the caller's context has ended.
func finish(ctx context.Context, tx pgx.Tx, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	if failed != nil {
		_ = tx.Rollback(ctx) // the connection is dropped where this fails, which rolls back as well
		return nil
	}
	return tx.Commit(ctx)
}

// heldTx gives its connection back at its end.
type heldTx struct {
	pgx.Tx
	free func()
}

func (t *heldTx) Commit(ctx context.Context) error {
	defer t.free()
	return t.Tx.Commit(ctx)
}

func (t *heldTx) Rollback(ctx context.Context) error {
	defer t.free()
	return t.Tx.Rollback(ctx)
}

// heldRows gives their connection back at their end. They are, as those of pgx,
// for one goroutine.
type heldRows struct {
	pgx.Rows
	end   func(failed error) error
	ended bool
	err   error // of the end
}

func (r *heldRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *heldRows) Close() {
	r.Rows.Close()
	if r.ended {
		return
	}
	r.ended = true
	r.err = r.end(r.Rows.Err())
}

func (r *heldRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// heldRow is the first of the rows.
type heldRow struct {
	rows pgx.Rows
	err  error
}

func (r heldRow) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(into...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}
