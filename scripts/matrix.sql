-- The sample of scripts/matrix: what a major of PostgreSQL may dump otherwise than another. Types, generated columns,
-- partitions, functions, rights, policies, statistics, large objects, values whose text depends on settings.
CREATE EXTENSION hstore;
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'it''s gone');
CREATE DOMAIN shop.email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email shop.email UNIQUE, state shop.state DEFAULT 'new',
    tags hstore, notes jsonb, born date, balance numeric(12, 2) CHECK (balance > -1000), ratio double precision,
    seen timestamptz, every interval, picture bytea, words text[], valid tstzrange, spans int4multirange,
    upper text GENERATED ALWAYS AS (upper(email)) STORED);
INSERT INTO shop.customers (email, tags, notes, born, balance, ratio, seen, every, picture, words, valid, spans)
    SELECT format('c%s@example.com', n), hstore('n', n::text), jsonb_build_object('n', n, 't', repeat('x\\y"', n % 7)),
        date '2000-01-01' + n, n / 3.0, 1.0 / n, timestamptz '2020-02-29 12:00+03' + n * interval '1 hour', n * interval '1 day 2 hours',
        decode(md5(n::text), 'hex'), ARRAY['a,b', NULL, n::text], tstzrange(now(), NULL), int4multirange(int4range(n, n + 3))
    FROM generate_series(1, 2000) n;
CREATE TABLE shop.orders (id int, at date NOT NULL, customer bigint REFERENCES shop.customers, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.orders_2025 PARTITION OF shop.orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop.orders_rest PARTITION OF shop.orders DEFAULT;
INSERT INTO shop.orders SELECT n, date '2024-06-01' + n % 700, n FROM generate_series(1, 2000) n;
CREATE TABLE shop."Odd ""Names""" ("a b" serial PRIMARY KEY, "select" char(5), CONSTRAINT "no gaps" EXCLUDE USING gist (span WITH &&), span int4range);
INSERT INTO shop."Odd ""Names""" ("select", span) SELECT 'x', int4range(n * 10, n * 10 + 5) FROM generate_series(1, 50) n;
CREATE UNLOGGED TABLE shop.scratch AS SELECT 1 AS one;
CREATE FUNCTION shop.total(c bigint) RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM shop.orders WHERE customer = c; END;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.seen := NEW.seen; RETURN NEW; END $f$;
CREATE TRIGGER touch BEFORE UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE INDEX by_note ON shop.customers USING gin (notes) WHERE balance > 0;
CREATE INDEX by_domain ON shop.customers (split_part(email, '@', 2)) INCLUDE (state);
CREATE STATISTICS shop.together (dependencies) ON state, balance FROM shop.customers;
CREATE VIEW shop.rich WITH (security_barrier) AS SELECT id, email FROM shop.customers WHERE balance > 100;
CREATE MATERIALIZED VIEW shop.by_day AS SELECT at, count(*) FROM shop.orders GROUP BY at;
CREATE POLICY own ON shop.customers FOR SELECT TO reader USING (balance > 0);
ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA shop TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO reader;
COMMENT ON TABLE shop.customers IS 'who buys; and -- why';
SELECT lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));
