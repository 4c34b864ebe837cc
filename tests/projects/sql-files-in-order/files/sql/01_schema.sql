create table customer(id integer primary key, city text);
create table bill(customer integer references customer, cents integer);
