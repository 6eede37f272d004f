-- What a small project on Supabase holds beside the platform's own schemas. Runs as the project's role `postgres`.
CREATE SCHEMA billing;
CREATE TYPE public.plan AS ENUM ('free', 'paid');

CREATE TABLE public.profiles (
  id uuid PRIMARY KEY REFERENCES auth.users (id) ON DELETE CASCADE,
  name text NOT NULL,
  plan public.plan NOT NULL DEFAULT 'free'
);
CREATE TABLE public.posts (
  id uuid PRIMARY KEY DEFAULT extensions.uuid_generate_v4(),
  author uuid NOT NULL DEFAULT auth.uid() REFERENCES public.profiles (id),
  body text NOT NULL,
  secret text DEFAULT encode(extensions.gen_random_bytes(8), 'hex')
);
-- A foreign key of a partitioned table cannot be left unproven (NOT VALID).
CREATE TABLE public.visits (
  visitor uuid NOT NULL REFERENCES auth.users (id),
  day date NOT NULL
) PARTITION BY RANGE (day);
CREATE TABLE public.visits_2026 PARTITION OF public.visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE billing.invoices (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  buyer uuid REFERENCES auth.users (id),
  cents integer NOT NULL CHECK (cents > 0)
);
CREATE VIEW public.mine AS SELECT id, body FROM public.posts WHERE author = auth.uid();

ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY;
CREATE POLICY "own posts" ON public.posts TO authenticated
  USING ((SELECT auth.uid()) = author) WITH CHECK (auth.role() = 'authenticated');
CREATE POLICY "everybody reads" ON public.profiles FOR SELECT TO anon, authenticated USING (true);
CREATE POLICY "staff" ON public.profiles TO authenticated USING ((auth.jwt() ->> 'email') LIKE '%@example.com');
CREATE POLICY "own files" ON storage.objects TO authenticated
  USING (bucket_id = 'avatars' AND auth.uid() = owner);
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;

-- Were it fired by a restore, every profile would be there twice.
CREATE FUNCTION public.new_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO public.profiles (id, name) VALUES (NEW.id, NEW.raw_user_meta_data ->> 'name');
  RETURN NEW;
END $$;
CREATE TRIGGER on_user AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.new_user();
CREATE TRIGGER on_post AFTER INSERT ON public.posts FOR EACH ROW
  EXECUTE FUNCTION supabase_functions.http_request('http://localhost', 'POST', '{}', '{}', '1000');

INSERT INTO auth.users (id, aud, role, email, encrypted_password, raw_user_meta_data, created_at)
  SELECT md5(n::text)::uuid, 'authenticated', 'authenticated', 'user' || n || '@example.com', md5(n::text),
    jsonb_build_object('name', E'N\t\\' || n), '2026-01-01'
  FROM generate_series(1, 50) n;
ALTER TABLE public.posts DISABLE TRIGGER on_post;
INSERT INTO public.posts (author, body) SELECT id, 'post of ' || name FROM public.profiles;
ALTER TABLE public.posts ENABLE TRIGGER on_post;
INSERT INTO public.visits SELECT id, '2026-03-04' FROM auth.users;
INSERT INTO billing.invoices (buyer, cents) SELECT id, 999 FROM auth.users LIMIT 7;
INSERT INTO storage.buckets (id, name) VALUES ('avatars', 'avatars');
INSERT INTO storage.objects (bucket_id, name, owner) SELECT 'avatars', id || '/face.png', id FROM auth.users LIMIT 9;
ALTER PUBLICATION supabase_realtime ADD TABLE public.posts;
